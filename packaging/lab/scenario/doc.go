// Package scenario is what happens in the lab: a server with services to
// assign, a sensor that is deployed by the guide, and attacks on it. The
// demonstration and the end-to-end tests share it.
package scenario

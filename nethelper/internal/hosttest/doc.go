// Package hosttest makes what the helper works with: containers without an
// engine, plug-ins, and pictures of a host's network before and after. It is
// used by tests only.
package hosttest

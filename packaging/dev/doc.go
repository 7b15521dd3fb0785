// Command dev is `make dev`: it runs a development sensor and brings every change
// of the sources into it while it runs.
//
// The sensor is the production image with the programs of the checkout mounted
// over its own. When a Go file changes, everything is built; builds are
// reproducible, so a program whose bytes stay is not concerned. One that changed
// is put into place, and its daemon alone starts again:
//
//	manager, nethelper   by the supervisor in the container
//	init                 with the container
//	offload              is started anew for each honeypot anyhow
//
// A build that fails is shown, and the sensor stays as it is. The end of the
// program removes the sensor with its volumes; what a killed one left is removed
// by the next.
package main

// Package helperapi is what manager and nethelper say to each other: HTTP/1.1
// with JSON on a unix socket.
//
//	PUT /v1/network  Network in, Observed out: the whole wanted state, idempotent,
//	                 all or nothing. On an error the state before stays in force.
//	GET /v1/network  Observed out.
//	DELETE /v1/network  Observed out: everything but the interface is taken back,
//	                 for another sensor on this host. PUT takes it again.
//	POST /v1/probe   Probe in, ProbeResult out: a connection as of an attacker.
//	GET /v1/health   Health out.
//
// An answer other than 200 carries an Error. The helper decodes strictly:
// unknown fields, trailing data and bodies over MaxBody are refused.
//
// A request describes what should be. It never carries a rule, a command line
// or a path: the helper derives those, from the request and from what it was
// given when the container started.
package helperapi

// Routes and limits of the API.
const (
	PathNetwork = "/v1/network"
	PathProbe   = "/v1/probe"
	PathHealth  = "/v1/health"

	// MaxBody is the largest request or answer, in bytes. 60 services with all
	// their ports stay far below.
	MaxBody = 1 << 20
	// MaxServices is the largest number of services in one Network.
	MaxServices = 250
	// MaxPorts is the largest number of port assignments in one Network.
	MaxPorts = 16384
)

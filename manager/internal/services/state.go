package services

import (
	"net/netip"

	"honeysens.org/dockersensor/shared/helperapi"
)

// Status is a service's state in the numbers of the server.
type Status int

// The states that a server knows.
const (
	Running   Status = 0
	Scheduled Status = 1
	Failed    Status = 2
)

// String returns the word for a person.
func (s Status) String() string {
	switch s {
	case Running:
		return "running"
	case Scheduled:
		return "scheduled"
	case Failed:
		return "error"
	}
	return "unknown"
}

// State is what there is to say about one wanted service.
type State struct {
	ID, Label string
	Status    Status
	// Reason says why it does not run, or what it runs without.
	Reason string
	// Image is "repo:tag"; Digest is that of the manifest of the image that is
	// in use, or "".
	Image, Digest string
	// ContainerID is that of the honeypot, or "".
	ContainerID string
	// V4 and V6 are its addresses in the services network, unset for a service
	// with raw network access.
	V4, V6 netip.Addr
	// Ports are those that lead to it once it runs.
	Ports         []helperapi.Assignment
	CatchAll, Raw bool
	// Redirects counts the connections that were led to it.
	Redirects helperapi.Counter
}

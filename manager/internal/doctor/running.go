package doctor

import (
	"context"
	"time"

	"honeysens.org/dockersensor/manager/internal/hsapi"
	"honeysens.org/dockersensor/shared/helperapi"
)

// Manager is a running manager, or where one should be.
type Manager interface {
	// Ask returns the manager's state. The error says what to do.
	Ask(ctx context.Context) (*Running, error)
}

// Helper is the running nethelper, or where one should be.
type Helper interface {
	Health(ctx context.Context) (helperapi.Health, error)
	Observe(ctx context.Context) (helperapi.Observed, error)
}

// Running is what a running manager says of itself. An empty error is none.
type Running struct {
	Version string
	Started time.Time
	// Interface is the name of the one that attackers reach.
	Interface string
	Server    Server
	// RefusedChange is what the server wants to be different and did not work,
	// with the reason, or "".
	RefusedChange string
	Services      []Service
	// NetworkError is why the network is not as the server wants it, and
	// CollectorError why honeypots cannot report.
	NetworkError, CollectorError string
	Events                       Events
}

// Server is how the polls of a manager went.
type Server struct {
	Address, Name, Route string
	// LastPoll is the last one that the server took.
	LastPoll time.Time
	// Error is why the newest one failed, with what to do.
	Error string
	Class hsapi.Class
	// ClockOffset is the server's clock minus this host's.
	ClockOffset time.Duration
}

// Service is a honeypot.
type Service struct {
	ID, Label string
	// State is running, scheduled or error.
	State, Reason string
}

// Events counts them.
type Events struct {
	Waiting, Quarantined int
	Sent, Lost           uint64
	// Error is why they cannot be kept or sent.
	Error string
}

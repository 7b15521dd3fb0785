package services

import (
	"context"
	"time"
)

// Role is what a container is for.
type Role string

// The roles.
const (
	Sandbox  Role = "sandbox"
	Honeypot Role = "service"
)

// Container is one of ours as the engine has it.
type Container struct {
	ID      string
	Name    string
	Role    Role
	Service string
	// Ref is the name of the image that it was made for, and Collector where it
	// reports; "" for a sandbox.
	Ref, Collector string
	// Config is the fingerprint of the Spec that it was made from.
	Config  string
	Running bool
	// Dead ones are half removed and cannot be started any more.
	Dead bool
	// PID is that of its first process as the engine's host sees it, 0 unless
	// it runs.
	PID int
	// Network is "none", "host", or "container:" with a container's id.
	Network string
	// Started and Finished are unset when that never happened.
	Started, Finished time.Time
	ExitCode          int
	OutOfMemory       bool
}

// Spec is what a container is made from.
type Spec struct {
	Name    string
	Role    Role
	Service string
	// Image is the engine's id of the image.
	Image string
	// Ref is the image's name, "repo:tag", or "".
	Ref     string
	Network string
	Env     []string
	// Caps are the capabilities that it has, and no others.
	Caps     []string
	ReadOnly bool
	Limits
}

// Engine is what services needs of a Docker engine. Docker has it.
type Engine interface {
	// Containers returns those with our labels, running or not.
	Containers(ctx context.Context) ([]Container, error)
	// Create makes a container and returns its id.
	Create(ctx context.Context, spec Spec) (string, error)
	// Start starts a container and returns what it is then.
	Start(ctx context.Context, id string) (Container, error)
	// Rename gives a container another name.
	Rename(ctx context.Context, id, name string) error
	// Remove ends a container and removes it. One that is not there is no
	// error.
	Remove(ctx context.Context, id string) error
	// LastLine returns the end of a container's output, or "".
	LastLine(ctx context.Context, id string) string
	// Usage tells what a running container uses, and has printed since then.
	Usage(ctx context.Context, id string, since time.Time) (Usage, error)
	// Watch calls notify whenever one of our containers has started, ended or
	// gone, until the context ends or the engine does.
	Watch(ctx context.Context, notify func()) error
}

// Images is what services needs of the keeper of images: ids are the engine's,
// digests those of the registry's manifests.
type Images interface {
	Present(ctx context.Context, uri string) (id, digest string, err error)
	Ensure(ctx context.Context, uri string, progress func(done, total int64)) (id, digest string, err error)
	Pause(ctx context.Context) (id string, err error)
	Prune(ctx context.Context, keep []string) error
}

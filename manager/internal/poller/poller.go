// Package poller tells the server time and again how the sensor is, and brings
// back what the server wants of it.
package poller

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"go.uber.org/zap"

	"honeysens.org/dockersensor/manager/internal/hsapi"
)

// Waits after a poll that was not accepted: doubled each time, never longer than
// a minute, so that a server that is back is noticed soon.
const (
	firstWait = 2 * time.Second
	maxWait   = time.Minute
)

// Client polls; *hsapi.Client does.
type Client interface {
	PostStatus(ctx context.Context, s hsapi.Status) (*hsapi.Wanted, error)
}

// Source tells how the sensor is.
type Source interface {
	PollStatus(ctx context.Context) hsapi.Status
}

// Sink takes what the server wants, after each poll that it accepted.
type Sink interface {
	Take(ctx context.Context, wanted *hsapi.Wanted)
}

// Config steers a poller.
type Config struct {
	// Interval is the time between two polls until the server names another.
	Interval time.Duration
}

// Poller polls in Run; Poke and State may be called at any time.
type Poller struct {
	client Client
	source Source
	sink   Sink
	log    *zap.Logger
	poke   chan struct{}

	// These belong to Run.
	interval time.Duration
	polled   bool
	wait     time.Duration

	mu    sync.Mutex
	state State
}

// State is what there is to know about polling.
type State struct {
	// LastSuccess is when the server last accepted a poll, or zero.
	LastSuccess time.Time
	// Error is why the newest poll was not accepted, or empty; Class sorts it.
	Error string
	Class hsapi.Class
}

// New returns a poller that has not polled yet.
func New(cfg Config, client Client, source Source, sink Sink, log *zap.Logger) *Poller {
	return &Poller{
		client: client, source: source, sink: sink, log: log,
		poke: make(chan struct{}, 1), interval: cfg.Interval, wait: firstWait,
	}
}

// Poke asks for a poll now.
func (p *Poller) Poke() {
	select {
	case p.poke <- struct{}{}:
	default:
	}
}

// State returns the state of this moment.
func (p *Poller) State() State {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state
}

// Run polls until ctx ends.
func (p *Poller) Run(ctx context.Context) {
	for ctx.Err() == nil {
		timer := time.NewTimer(p.once(ctx))
		select {
		case <-timer.C:
		case <-p.poke:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// once polls and returns how long to wait for the next one.
func (p *Poller) once(ctx context.Context) time.Duration {
	status := p.source.PollStatus(ctx)
	if !p.polled {
		// The server expects no services from a sensor that has just started.
		status.Services = nil
	}
	wanted, err := p.client.PostStatus(ctx, status)
	if ctx.Err() != nil {
		return 0
	}
	if err != nil {
		p.failed(err)
		pause := jitter(p.wait)
		p.wait = min(2*p.wait, maxWait)
		return pause
	}
	p.succeeded()
	p.wait = firstWait
	if wanted.Interval > 0 {
		p.interval = wanted.Interval
	}
	p.sink.Take(ctx, wanted)
	first := !p.polled
	p.polled = true
	if first {
		// What runs already is told at once, not after an interval.
		return 0
	}
	return p.interval
}

func (p *Poller) succeeded() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state.Error != "" {
		p.log.Info("the server accepts polls again")
	}
	p.state = State{LastSuccess: time.Now()}
}

// failed notes an error, and logs it when it is another than before.
func (p *Poller) failed(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err.Error() != p.state.Error {
		p.log.Warn("the server does not accept polls", zap.Error(err))
	}
	p.state.Error, p.state.Class = err.Error(), ""
	var known *hsapi.Error
	if errors.As(err, &known) {
		p.state.Class = known.Class
	}
}

// jitter returns between half and all of a duration, so that sensors that lost
// the server together do not come back together.
func jitter(d time.Duration) time.Duration {
	return d/2 + rand.N(d/2) // #nosec G404 -- spreads load, keeps no secret
}

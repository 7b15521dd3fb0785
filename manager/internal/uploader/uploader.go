package uploader

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"go.uber.org/zap"

	"honeysens.org/dockersensor/shared/event"
)

// Spool is where events wait.
type Spool interface {
	Peek(ctx context.Context, n, maxBytes int, skip func(id uint64) bool) ([]event.Record, error)
	Ack(ctx context.Context, ids ...uint64) error
	Quarantine(ctx context.Context, id uint64, reason string) error
	ReportLosses(ctx context.Context, render func([]event.Loss) (event.Record, error)) (bool, error)
	Wake() <-chan struct{}
}

// Server takes a JSON list of events. An error that says so by Rejected or
// ServerFault is about the content or the server itself, anything else is about
// the way there.
type Server interface {
	PostEvents(ctx context.Context, list []byte) error
}

// Config is how events are sent. Zero values get the defaults, which are what a
// HoneySens server 2.9.0 takes in about a second.
type Config struct {
	// MaxEvents bounds the events of a request, default 500.
	MaxEvents int
	// MaxBody bounds a request in bytes of base64, default 1,000,000.
	MaxBody int
	// Gap is the least time between two requests that are not full, default
	// 200 ms.
	Gap time.Duration
	// MaxWait is the longest time between two attempts, default 1 min.
	MaxWait time.Duration
	// Timeout is for one request, default 1 min.
	Timeout time.Duration
	// Source returns the sensor's own address, for events of its own.
	Source func() string
	// Known returns when the server last took any other request of this sensor:
	// then a refused event was not refused because the server does not know the
	// sensor. May be nil.
	Known func() time.Time
}

func (cfg Config) withDefaults() Config {
	setDefault(&cfg.MaxEvents, 500)
	setDefault(&cfg.MaxBody, 1_000_000)
	setDefault(&cfg.Gap, 200*time.Millisecond)
	setDefault(&cfg.MaxWait, time.Minute)
	setDefault(&cfg.Timeout, time.Minute)
	if cfg.Source == nil {
		cfg.Source = func() string { return "" }
	}
	if cfg.Known == nil {
		cfg.Known = func() time.Time { return time.Time{} }
	}
	return cfg
}

func setDefault[T int | time.Duration](value *T, to T) {
	if *value <= 0 {
		*value = to
	}
}

// firstWait is the time until the first repetition of what did not work.
const firstWait = time.Second

// Uploader is used by one Run; Kick and State are for everybody.
type Uploader struct {
	cfg    Config
	spool  Spool
	server Server
	log    *zap.Logger
	kick   chan struct{}

	// suspects are events that the server refused alone.
	suspects map[uint64]*suspect
	// outage is set while nothing that was sent was taken: then single events are
	// tried, each time another one.
	outage bool
	// refusal is the newest one since the server took an event, refusedInRow
	// counts those of single events.
	refusal      error
	refusedInRow int
	// refused is the event of the newest one, took is set when anything was taken
	// since the beginning of a round.
	refused uint64
	took    bool
	// unacked are events that the server has and the spool could not remove.
	unacked map[uint64]bool
	// lossReported is when the server was last told of a loss.
	lossReported time.Time

	mu    sync.Mutex
	state State
}

// State is what there is to know about sending.
type State struct {
	// Sent and Quarantined count since the start.
	Sent, Quarantined uint64
	// LastSent is when the server last took events, or zero.
	LastSent time.Time
	// Error is why the newest request was not taken, or empty.
	Error string
	// NextTry is when the next attempt after an error comes, or zero.
	NextTry time.Time
	// Suspects are events that wait for another attempt, alone.
	Suspects int
}

// New returns an uploader from spool to server.
func New(cfg Config, spool Spool, server Server, log *zap.Logger) *Uploader {
	return &Uploader{
		cfg: cfg.withDefaults(), spool: spool, server: server, log: log,
		kick: make(chan struct{}, 1), suspects: map[uint64]*suspect{}, unacked: map[uint64]bool{},
	}
}

// Kick ends a wait after an error, for when the way to the server has changed.
func (u *Uploader) Kick() {
	select {
	case u.kick <- struct{}{}:
	default:
	}
}

// State returns the numbers of this moment.
func (u *Uploader) State() State {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.state
}

// Run sends events until ctx ends.
func (u *Uploader) Run(ctx context.Context) {
	wait := firstWait
	for ctx.Err() == nil {
		progress, err := u.round(ctx)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			pause := jitter(wait)
			u.failed(err, time.Now().Add(pause))
			var news <-chan struct{}
			if u.allTried(ctx) {
				news = u.spool.Wake()
			}
			u.sleep(ctx, pause, news)
			wait = min(2*wait, u.cfg.MaxWait)
		case progress == full:
			wait = firstWait
		case progress == some:
			wait = firstWait
			u.sleep(ctx, u.cfg.Gap, nil)
		default:
			u.sleep(ctx, u.idle(), u.spool.Wake())
		}
	}
}

// idle is how long a round without events can be the last one.
func (u *Uploader) idle() time.Duration {
	wait := u.cfg.MaxWait
	for _, s := range u.suspects {
		wait = min(wait, time.Until(s.due))
	}
	return max(wait, 0)
}

// sleep ends early by wake, by Kick and with ctx.
func (u *Uploader) sleep(ctx context.Context, d time.Duration, wake <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-wake:
	case <-u.kick:
	case <-ctx.Done():
	}
}

// jitter keeps the sensors of a server that was away from coming back at once.
func jitter(d time.Duration) time.Duration {
	return d/2 + rand.N(d/2+1) // #nosec G404 -- no secret
}

func (u *Uploader) failed(err error, next time.Time) {
	u.mu.Lock()
	isNew := u.state.Error == ""
	u.state.Error, u.state.NextTry = err.Error(), next
	u.mu.Unlock()
	if isNew {
		u.log.Warn("events cannot be sent", zap.Error(err))
	}
}

func (u *Uploader) succeeded(count int) {
	u.mu.Lock()
	had := u.state.Error
	u.state.Sent += uint64(count) // #nosec G115 -- a length
	u.state.LastSent = time.Now()
	u.state.Error, u.state.NextTry = "", time.Time{}
	u.mu.Unlock()
	if had != "" {
		u.log.Info("events can be sent again")
	}
}

// calm takes back an error when there is nothing left to send.
func (u *Uploader) calm() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.state.Error, u.state.NextTry = "", time.Time{}
}

// countSuspects copies what only Run may read.
func (u *Uploader) countSuspects() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.state.Suspects = len(u.suspects)
}

// setAside gives up an event.
func (u *Uploader) setAside(ctx context.Context, id uint64, reason string) error {
	if err := u.spool.Quarantine(ctx, id, reason); err != nil {
		return fmt.Errorf("set event aside: %w", err)
	}
	u.log.Warn("event set aside", zap.Uint64("id", id), zap.String("reason", reason))
	u.mu.Lock()
	defer u.mu.Unlock()
	u.state.Quarantined++
	return nil
}

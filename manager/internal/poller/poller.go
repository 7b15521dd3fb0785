// Package poller is the sensor's conversation with its server: it tells how the
// sensor is, and leads what the server wants to the sink, at the interval that
// the server sets.
//
// Invariants:
//   - There is one poll at a time, and a second at least between two of them.
//   - Each poll tells the state of its own moment; a poke that came before it is
//     answered by it.
//   - A restart ends the poll that is under way, which was made with what is no
//     longer in force, and the next one comes at once.
//   - After a failure the next poll comes after a second, later ones after
//     twice the time each, at most a minute; a part of it is random, so that
//     the sensors of a server that comes back do not come all at once.
//
// It decides nothing about what the server wants, and keeps nothing of it but
// the interval.
package poller

import (
	"context"
	"crypto/rand"
	"math/big"
	"sync"
	"time"

	"go.uber.org/zap"

	"honeysens.org/dockersensor/manager/internal/config"
	"honeysens.org/dockersensor/manager/internal/hsapi"
)

// Times between polls.
const (
	firstRetry = time.Second
	lastRetry  = time.Minute
	// pokeGap is the least time between two polls, and pokeGapFailing the least
	// one while polls fail.
	pokeGap        = time.Second
	pokeGapFailing = 5 * time.Second
)

// Server takes a status and says what it wants.
type Server interface {
	PostStatus(context.Context, hsapi.Status) (*hsapi.Wanted, error)
}

// Source knows how the sensor is.
type Source interface {
	PollStatus(context.Context) hsapi.Status
}

// Sink is told what the server wants. It keeps the poller waiting until it
// returns.
type Sink interface {
	Take(context.Context, *hsapi.Wanted)
}

// Config of a poller.
type Config struct {
	// Interval is the time between polls until the server names another.
	Interval time.Duration
}

// State is how the polls went.
type State struct {
	// LastSuccess is the newest poll that the server took, LastTry the newest
	// of all; both are zero before the first.
	LastSuccess, LastTry time.Time
	// Error is why the newest poll failed, with what to do, or "". Class says
	// who has to do it.
	Error string
	Class hsapi.Class
	// Interval is the one that is in force.
	Interval time.Duration
}

// Poller polls a server.
type Poller struct {
	server Server
	source Source
	sink   Sink
	log    *zap.Logger
	poke   chan struct{}

	mu    sync.Mutex
	state State
	// restart ends the poll that is under way; it is nil when there is none.
	// restarted is set from a restart to the next poll.
	restart   context.CancelFunc
	restarted bool
}

// New returns a poller that waits for Run.
func New(cfg Config, server Server, source Source, sink Sink, log *zap.Logger) *Poller {
	interval := min(max(cfg.Interval, config.MinInterval), config.MaxInterval)
	return &Poller{server: server, source: source, sink: sink, log: log,
		poke: make(chan struct{}, 1), state: State{Interval: interval}}
}

// Poke asks for a poll now, since something has changed that the server should
// know. It never waits.
func (p *Poller) Poke() {
	select {
	case p.poke <- struct{}{}:
	default: // one is asked for already
	}
}

// Restart asks for a poll now, with what has come into force, and not for the end
// of one that was made before. Failures so far count no longer.
func (p *Poller) Restart() {
	p.mu.Lock()
	p.restarted = true
	if p.restart != nil {
		p.restart()
	}
	p.mu.Unlock()
	p.Poke()
}

// begin is the context of a poll, which a restart ends.
func (p *Poller) begin(ctx context.Context) (context.Context, context.CancelFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.restarted = false
	ctx, p.restart = context.WithCancel(ctx)
	return ctx, p.restart
}

// fresh tells whether there was a restart since the last poll began.
func (p *Poller) fresh() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.restarted
}

// State tells how the polls went. It may be called at any time.
func (p *Poller) State() State {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state
}

// Run polls, the first time at once, until the context ends.
func (p *Poller) Run(ctx context.Context) {
	for failures := 0; ctx.Err() == nil; {
		took := p.once(ctx)
		if took || p.fresh() {
			failures = 0
			p.wait(ctx, p.State().Interval, pokeGap)
			continue
		}
		retry := retryAfter(failures)
		failures++
		p.wait(ctx, retry, min(retry, pokeGapFailing))
	}
}

// once polls, and tells whether the server took it.
func (p *Poller) once(ctx context.Context) bool {
	select {
	case <-p.poke: // answered by this poll
	default:
	}
	status := p.source.PollStatus(ctx)
	if p.State().LastSuccess.IsZero() {
		// The first answer says which services there are; what runs from
		// before is told with the second poll, as all sensors do.
		status.Services = nil
	}
	poll, end := p.begin(ctx)
	wanted, err := p.server.PostStatus(poll, status)
	if ended := poll.Err() != nil; ended || ctx.Err() != nil {
		end()
		return false
	}
	end()
	p.note(wanted, err, time.Now())
	if err != nil {
		return false
	}
	p.sink.Take(ctx, wanted)
	return true
}

// note writes down how a poll went, and logs what is new.
func (p *Poller) note(wanted *hsapi.Wanted, err error, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.state
	p.state.LastTry = now
	if err != nil {
		p.state.Error, p.state.Class = err.Error(), hsapi.ClassOf(err)
		p.logFailure(before, err)
		return
	}
	p.state.LastSuccess, p.state.Error, p.state.Class = now, "", ""
	if wanted.Interval > 0 {
		p.state.Interval = wanted.Interval
	}
	if before.LastSuccess.IsZero() || before.Error != "" {
		p.log.Info("server reached", zap.Duration("interval", p.state.Interval))
	}
}

// logFailure speaks up when the trouble is a new one.
func (p *Poller) logFailure(before State, err error) {
	level := zap.DebugLevel
	if before.Error == "" || before.Class != p.state.Class {
		level = zap.WarnLevel
	}
	p.log.Log(level, "poll failed", zap.String("class", string(p.state.Class)), zap.Error(err))
}

// wait returns after d, or earlier when poked, but not before the gap.
func (p *Poller) wait(ctx context.Context, d, gap time.Duration) {
	timer := time.NewTimer(gap)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return
	case <-timer.C:
	}
	timer.Reset(max(d-gap, 0))
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-p.poke:
	}
}

// retryAfter is the wait after so many failures before this one: the second half
// of it is random.
func retryAfter(failures int) time.Duration {
	full := lastRetry
	if failures < 6 {
		full = min(firstRetry<<failures, lastRetry)
	}
	random, err := rand.Int(rand.Reader, big.NewInt(int64(full/2)))
	if err != nil {
		return full
	}
	return full/2 + time.Duration(random.Int64())
}

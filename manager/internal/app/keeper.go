package app

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"

	"honeysens.org/dockersensor/shared/helperapi"
)

// observeEvery is how often the helper is asked, and how soon a helper that was
// away gets the wanted state again.
const observeEvery = 5 * time.Second

// helper is the client of the nethelper.
type helper interface {
	Apply(ctx context.Context, want helperapi.Network) (helperapi.Observed, error)
	Observe(ctx context.Context) (helperapi.Observed, error)
}

// keeper holds the wanted network and sees to it that the helper has it: the
// interface and the bridge come from the configuration, the services from those
// who run them.
type keeper struct {
	helper helper
	log    *zap.Logger

	// puts goes one at a time, so that an older state never follows a newer one.
	puts sync.Mutex

	mu       sync.Mutex
	want     helperapi.Network
	known    bool // the services have been told at least once
	observed helperapi.Observed
	err      error
	changed  chan struct{}
}

func newKeeper(helper helper, want helperapi.Network, log *zap.Logger) *keeper {
	return &keeper{helper: helper, log: log, want: want, changed: make(chan struct{})}
}

// Apply makes these the services of the network. It implements what the
// services need of the network.
func (k *keeper) Apply(ctx context.Context, services []helperapi.Service) (helperapi.Observed, error) {
	k.mu.Lock()
	k.want.Services = services
	k.known = true
	k.mu.Unlock()
	return k.put(ctx)
}

// Observe asks the helper now. It implements what the services need of the
// network. That the helper answers does not mend an error of the last change.
func (k *keeper) Observe(ctx context.Context) (helperapi.Observed, error) {
	observed, err := k.helper.Observe(ctx)
	if err != nil || k.state().err == nil {
		k.note(observed, err)
	}
	return observed, err
}

// configure changes everything but the services.
func (k *keeper) configure(ctx context.Context, want helperapi.Network) {
	k.mu.Lock()
	want.Services = k.want.Services
	k.want = want
	known := k.known
	k.mu.Unlock()
	// While the services are not known, those that an earlier manager attached
	// must stay; whoever tells them brings this change along.
	if known {
		_, _ = k.put(ctx)
	}
}

func (k *keeper) put(ctx context.Context) (helperapi.Observed, error) {
	k.puts.Lock()
	defer k.puts.Unlock()
	k.mu.Lock()
	want := k.want
	k.mu.Unlock()
	observed, err := k.helper.Apply(ctx, want)
	k.note(observed, err)
	return observed, err
}

// note keeps the newest answer and wakes who waits for a change. An error
// leaves the last observed state standing.
func (k *keeper) note(observed helperapi.Observed, err error) {
	k.mu.Lock()
	before := k.err
	k.err = err
	if err == nil {
		k.observed = observed
	}
	close(k.changed)
	k.changed = make(chan struct{})
	k.mu.Unlock()
	switch {
	case err != nil && (before == nil || before.Error() != err.Error()):
		k.log.Warn("network not as wanted", zap.Error(err))
	case err == nil && before != nil:
		k.log.Info("network as wanted again")
	}
}

// keeperState is what the keeper knows of the network.
type keeperState struct {
	// observed is the newest answer, err the error of the newest try.
	observed helperapi.Observed
	err      error
	// changed is closed when either may have changed.
	changed <-chan struct{}
}

func (k *keeper) state() keeperState {
	k.mu.Lock()
	defer k.mu.Unlock()
	return keeperState{observed: k.observed, err: k.err, changed: k.changed}
}

// run asks the helper time and again, until ctx ends.
func (k *keeper) run(ctx context.Context) {
	tick := time.NewTicker(observeEvery)
	defer tick.Stop()
	for {
		k.check(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// check asks the helper for its state. A helper that has none, because it is
// new or the last try failed, gets the wanted one.
func (k *keeper) check(ctx context.Context) {
	observed, err := k.helper.Observe(ctx)
	switch {
	case ctx.Err() != nil:
	case err == nil && (!observed.Applied || k.state().err != nil):
		_, _ = k.put(ctx)
	default:
		k.note(observed, err)
	}
}

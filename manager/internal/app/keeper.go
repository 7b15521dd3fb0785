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

// keeper holds the wanted network: the interface and the bridge come from the
// configuration, the services from those who run them. Only these put it into
// force, since they alone know what is attached; the keeper watches the helper
// and tells them when that is needed again.
type keeper struct {
	helper helper
	log    *zap.Logger

	mu       sync.Mutex
	want     helperapi.Network
	observed helperapi.Observed
	err      error
	away     bool // the helper did not answer when it was last asked
	changed  chan struct{}
}

func newKeeper(helper helper, want helperapi.Network, log *zap.Logger) *keeper {
	return &keeper{helper: helper, log: log, want: want, changed: make(chan struct{})}
}

// configure changes everything but the services; it is in force after the next
// Apply.
func (k *keeper) configure(want helperapi.Network) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.want = want
}

// Apply puts the network with these services into force. It implements what the
// services need of the network.
func (k *keeper) Apply(ctx context.Context, services []helperapi.Service) (helperapi.Observed, error) {
	k.mu.Lock()
	want := k.want
	k.mu.Unlock()
	want.Services = services
	observed, err := k.helper.Apply(ctx, want)
	k.note(observed, err)
	return observed, err
}

// Observe asks the helper now. It implements what the services need of the
// network.
func (k *keeper) Observe(ctx context.Context) (helperapi.Observed, error) {
	observed, err := k.helper.Observe(ctx)
	// That the helper answers does not mend an error of the last change.
	if err != nil || k.state().err == nil {
		k.note(observed, err)
	}
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

// run asks the helper time and again until ctx ends, and calls reconnect when
// the wanted state has to be put into force again: the helper is new, or it was
// away.
func (k *keeper) run(ctx context.Context, reconnect func()) {
	tick := time.NewTicker(observeEvery)
	defer tick.Stop()
	for {
		observed, err := k.Observe(ctx)
		if k.back(err) || (err == nil && !observed.Applied) {
			reconnect()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// back tells whether the helper answers for the first time after it did not.
func (k *keeper) back(err error) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	was := k.away
	k.away = err != nil
	return was && err == nil
}

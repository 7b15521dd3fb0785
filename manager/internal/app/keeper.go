package app

import (
	"context"
	"reflect"
	"sync"
	"time"

	"go.uber.org/zap"

	"honeysens.org/dockersensor/shared/helperapi"
)

// observeEvery is how often the helper is asked, and how soon a helper that was
// away gets the wanted state again.
const observeEvery = 5 * time.Second

// settleTime is how long a wanted state has to be in force before a poll proves
// that the server is reached with it. The interface was observed meanwhile.
const settleTime = 2 * observeEvery

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
	// configured counts the changes of want, applied is the one in force, and
	// since is when it came into force.
	configured, applied int
	since               time.Time
}

func newKeeper(helper helper, want helperapi.Network, log *zap.Logger) *keeper {
	return &keeper{helper: helper, log: log, want: want, changed: make(chan struct{}), configured: 1}
}

// configure changes everything but the services; it is in force after the next
// Apply.
func (k *keeper) configure(want helperapi.Network) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !reflect.DeepEqual(k.want, want) {
		k.configured++
	}
	k.want = want
}

// settled tells whether the newest wanted state is in force, and has been for
// some time: a lease or 802.1X can fail a while after the change.
func (k *keeper) settled() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.applied == k.configured && k.observed.Interface.Problem == "" && time.Since(k.since) >= settleTime
}

// Apply puts the network with these services into force. It implements what the
// services need of the network.
func (k *keeper) Apply(ctx context.Context, services []helperapi.Service) (helperapi.Observed, error) {
	k.mu.Lock()
	want, configured := k.want, k.configured
	k.mu.Unlock()
	want.Services = services
	observed, err := k.helper.Apply(ctx, want)
	if err == nil {
		k.inForce(configured)
	}
	k.note(observed, err)
	return observed, err
}

// inForce notes that a wanted state came into force.
func (k *keeper) inForce(configured int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.applied != configured {
		k.applied, k.since = configured, time.Now()
	}
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

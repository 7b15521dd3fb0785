package app

import (
	"context"
	"time"
)

// proveEvery is the time between two polls while settings are on trial.
const proveEvery = 5 * time.Second

// adopt leads the settings in force to those whom they concern.
func (m *manager) adopt() {
	m.adopting.Lock()
	defer m.adopting.Unlock()
	if m.setup.needsRestart() {
		m.stop(errNewPorts)
		return
	}
	settings := m.setup.settings()
	m.server.Configure(settings)
	m.keeper.configure(wantedNetwork(m.cfg, settings))
	m.services.Reconnect()
	m.uploader.Kick()
	// A poll that hangs on the way before says nothing about this one.
	m.poller.Restart()
}

// watchTrials ends trials that did not succeed in time and begins those that
// are due again, until ctx ends.
func (m *manager) watchTrials(ctx context.Context) {
	w := watch{setup: m.setup, adopt: m.adopt, poke: m.poller.Poke, reason: m.unproved}
	w.run(ctx)
}

// unproved says why no poll has proved the settings on trial.
func (m *manager) unproved() string {
	if poll := m.poller.State(); poll.Error != "" {
		return poll.Error
	}
	state := m.keeper.state()
	switch {
	case state.err != nil:
		return state.err.Error()
	case state.observed.Interface.Problem != "":
		return state.observed.Interface.Problem
	}
	return "the server did not answer"
}

// watch looks after the setup's times.
type watch struct {
	setup *setup
	// adopt leads changed settings to all, poke asks for a poll, and reason
	// says why none succeeds.
	adopt, poke func()
	reason      func() string
}

func (w watch) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.setup.wake:
		case <-timer.C:
		}
		if w.setup.elapse(time.Now(), w.reason()) {
			w.adopt()
		}
		timer.Stop()
		if next, ok := w.next(); ok {
			timer.Reset(next)
		}
	}
}

// next is how long to wait, and asks for a poll while settings are on trial.
func (w watch) next() (time.Duration, bool) {
	due := w.setup.due()
	if due.IsZero() {
		return 0, false
	}
	left := max(time.Until(due), 0)
	if w.setup.trial() {
		w.poke()
		left = min(left, proveEvery)
	}
	return left, true
}

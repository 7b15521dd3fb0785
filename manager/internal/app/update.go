package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"honeysens.org/dockersensor/manager/internal/control"
	"honeysens.org/dockersensor/manager/internal/hsapi"
	"honeysens.org/dockersensor/manager/internal/selftest"
	"honeysens.org/dockersensor/manager/internal/services"
	"honeysens.org/dockersensor/manager/internal/update"
	"honeysens.org/dockersensor/shared/event"
	"honeysens.org/dockersensor/shared/version"
)

// errByHand says why an order about updates is refused.
var errByHand = errors.New("this sensor is updated by hand: its compose file does not mount the socket of the host's engine, or it is no container")

// OrderUpdate does what the operator wants of updates.
func (m *manager) OrderUpdate(order control.UpdateOrder) error {
	if m.cfg.HostDockerSocket == "" {
		return errByHand
	}
	if order == control.UpdateHold {
		return m.agent.Hold(true)
	}
	if err := m.agent.Retry(); err != nil {
		return err
	}
	m.Poll()
	return nil
}

// agent is the part of the configuration that is about updates.
func (cfg Config) agent() update.Config {
	return update.Config{
		Revision: version.Revision, DeployDir: cfg.DeployDir, Previous: cfg.Previous, Rate: cfg.UpdateRate,
		Limits: update.Limits{Prepare: cfg.UpdateTime, Trial: cfg.UpdateTime},
	}
}

func (m *manager) updateState() control.UpdateState {
	s := m.agent.Status()
	return control.UpdateState{
		Phase: string(s.Phase), Revision: s.Revision, Side: string(s.Side), Since: s.Since, Done: s.Done, Total: s.Total,
		Problem: s.Problem, Hold: s.Hold, Refused: s.Refused,
	}
}

// offer leads the revision that the server wants to the agent. While settings are
// on trial it waits: one thing at a time.
func (m *manager) offer(firmware *hsapi.Firmware) {
	switch {
	case firmware == nil:
		m.agent.Offer(update.Offer{})
	case !m.setup.trial():
		m.agent.Offer(update.Offer{Revision: firmware.Revision, URI: firmware.URI})
	}
}

// worked finds out what works, for an update to be measured against.
func (m *manager) worked(ctx context.Context) update.Worked {
	proof := m.state()
	return update.Worked{
		Services: proof.Services, Tested: m.tests.once(ctx), Network: proof.Network, Events: m.uploader.State().Error == "",
	}
}

// proof says what has worked since this manager serves. On trial it has honeypots
// visited, until all is proved.
func (m *manager) proof() update.Proof {
	proof := m.state()
	if m.agent.Status().Phase == update.Trial {
		proof.Tested = m.tests.last()
	}
	return proof
}

// state is the proof without visits.
func (m *manager) state() update.Proof {
	poll, network := m.poller.State(), m.keeper.state()
	proof := update.Proof{
		Poll:     poll.Error == "" && poll.LastSuccess.After(m.started),
		Event:    m.uploader.State().LastSent.After(m.started),
		Network:  network.err == nil && network.observed.Applied && network.observed.Interface.Problem == "",
		Services: []string{},
	}
	for _, state := range m.services.States() {
		if state.Status == services.Running {
			proof.Services = append(proof.Services, state.ID)
		}
	}
	return proof
}

// tests are repeated while somebody asks for the last result.
type tests struct {
	// visit is the self-test.
	visit func(ctx context.Context, tell func(control.TestFinding)) bool
	wake  chan struct{}

	mu     sync.Mutex
	passed []string
}

// Times of tests: the pause between two, and the longest of one.
const (
	testAgain   = time.Second
	testTimeout = time.Minute
)

// run tests until ctx ends.
func (t *tests) run(ctx context.Context) {
	for {
		select {
		case <-t.wake:
		case <-ctx.Done():
			return
		}
		passed := t.once(ctx)
		t.mu.Lock()
		t.passed = passed
		t.mu.Unlock()
		if !wait(ctx, testAgain) {
			return
		}
	}
}

// once returns the services that pass, in order.
func (t *tests) once(ctx context.Context) []string {
	ctx, cancel := context.WithTimeout(ctx, testTimeout)
	defer cancel()
	var passed []string
	t.visit(ctx, func(f control.TestFinding) {
		if f.Service != "" && f.Verdict == string(selftest.Works) {
			passed = append(passed, f.Service)
		}
	})
	slices.Sort(passed)
	return slices.Compact(passed)
}

// last returns those of the newest test, and asks for another one.
func (t *tests) last() []string {
	select {
	case t.wake <- struct{}{}:
	default:
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.passed
}

// noticePart is how many bytes of a text fit in one detail of an event.
const noticePart = 240

// notice tells the server something as an event of the sensor itself.
func (m *manager) notice(ctx context.Context, summary, detail string) error {
	now := time.Now()
	e := event.Event{Timestamp: now.Unix(), Service: event.ServiceGeneric, Source: m.sourceText(), Summary: summary}
	for part := range slices.Chunk([]byte(detail), noticePart) {
		e.Details = append(e.Details, event.Detail{Timestamp: now.Unix(), Data: strings.ToValidUTF8(string(part), "?")})
	}
	e.Clean(now)
	encoded, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encode notice: %w", err)
	}
	_, err = m.spool.Append(ctx, event.Record{Received: now, Event: encoded})
	return err
}

// runAgent sees to updates. When it is the other sensor's turn it lets go of all
// that only one can have, and ends the manager.
func (m *manager) runAgent(ctx context.Context, front *sync.WaitGroup, stopFront context.CancelFunc) {
	err := m.agent.Run(ctx)
	if !errors.Is(err, update.ErrTurn) {
		return
	}
	m.log.Info("the other sensor of the update takes over")
	stopFront()
	front.Wait()
	// The collector still takes what the honeypots have to say at their end.
	m.ground.clear(ctx)
	m.stop(update.ErrTurn)
}

// ground is what only one of two sensors can stand on.
type ground struct {
	engine services.Engine
	helper releaser
	log    *zap.Logger
}

// releaser lets go of the host's network.
type releaser interface {
	Release(ctx context.Context) error
}

// clearTimeout bounds the end of honeypots and network.
const clearTimeout = 15 * time.Second

// clear ends the honeypots, which report what they know, and lets go of the
// network. Sandboxes stay for the way back. It tells whether all is done.
func (g ground) clear(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, clearTimeout)
	defer cancel()
	err := g.endHoneypots(ctx)
	if g.helper != nil {
		err = errors.Join(err, g.helper.Release(ctx))
	}
	if err != nil {
		g.log.Warn("not all is free for the other sensor", zap.Error(err))
	}
	return err == nil
}

func (g ground) endHoneypots(ctx context.Context) error {
	list, err := g.engine.Containers(ctx)
	if err != nil {
		return err
	}
	errs := make([]error, len(list))
	var wg sync.WaitGroup
	for n, c := range list {
		if c.Role == services.Honeypot {
			wg.Go(func() { errs[n] = g.engine.Remove(ctx, c.ID) })
		}
	}
	wg.Wait()
	return errors.Join(errs...)
}

package app

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/docker/docker/client"
	"go.uber.org/zap"

	"honeysens.org/dockersensor/manager/internal/control"
	"honeysens.org/dockersensor/manager/internal/hsapi"
	"honeysens.org/dockersensor/manager/internal/images"
	"honeysens.org/dockersensor/manager/internal/network"
	"honeysens.org/dockersensor/manager/internal/selftest"
	"honeysens.org/dockersensor/manager/internal/services"
	"honeysens.org/dockersensor/manager/internal/update"
	"honeysens.org/dockersensor/shared/helperapi"
	"honeysens.org/dockersensor/shared/version"
)

const (
	// readyEvery is how often a sensor that waits for its turn looks whether it is
	// ready, and pollAgain the pause after a poll that failed.
	readyEvery = time.Second
	pollAgain  = 3 * time.Second
)

// standby is a manager while the other sensor of an update serves. It prepares
// what it can without touching what that one has: images and sandboxes in its
// own engine, and, in the new sensor, a poll.
type standby struct {
	cfg      Config
	log      *zap.Logger
	started  time.Time
	side     update.Side
	record   *update.Record
	journal  *update.Journal
	setup    *setup
	server   *hsapi.Client
	helper   *network.Client
	services *services.Services
	ground   ground

	mu     sync.Mutex
	report update.Report
	polled time.Time
	pollAt error
}

// standBy returns when it is this sensor's turn, or with ctx.
func (t *turns) standBy(ctx context.Context, turn *update.Turn, side update.Side, r *update.Record) error {
	s, err := t.newStandby(side, r)
	if err != nil {
		return err
	}
	t.log.Info("waits for its turn in an update", zap.String("side", string(side)), zap.String("phase", string(r.Phase)))
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var parts sync.WaitGroup
	parts.Go(func() {
		if err := control.NewServer(s, t.level, t.log.Named("control")).Serve(ctx, t.cfg.ControlSocket); err != nil {
			t.log.Error("the command line cannot reach this manager", zap.Error(err))
		}
	})
	parts.Go(func() { s.prepare(ctx) })
	turn.Wait(ctx, side)
	stop()
	parts.Wait()
	s.server.Close()
	t.fresh = false
	return nil
}

func (t *turns) newStandby(side update.Side, r *update.Record) (*standby, error) {
	engine, err := client.NewClientWithOpts(client.WithHost("unix://"+t.cfg.DockerSocket), client.WithAPIVersionNegotiation())
	if err != nil {
		return nil, fmt.Errorf("client of the nested engine: %w", err)
	}
	s := &standby{cfg: t.cfg, log: t.log.Named("standby"), started: time.Now(), side: side, record: r, journal: t.journal, setup: t.setup}
	s.server = hsapi.New(hsapi.Config{}, t.setup.settings())
	store, err := images.New(images.Config{
		Transport: s.server.RegistryTransport(), Registry: s.server.Registry, Pause: t.cfg.PauseProgram,
		Cache: filepath.Join(t.cfg.StateDir, "images"), Flush: update.Flush,
	}, engine, s.log)
	if err != nil {
		return nil, err
	}
	docker := services.NewDocker(engine, s.log)
	s.ground = ground{engine: docker, log: s.log}
	if t.cfg.Interface != "" {
		s.helper = network.New(network.Config{Socket: t.cfg.HelperSocket}, s.log)
		s.ground.helper = s.helper
	}
	s.services = services.New(services.Config{
		Store: filepath.Join(t.cfg.StateDir, "services.json"), Interface: t.cfg.Interface, CollectorPort: t.cfg.CollectorPort,
		Limits: t.cfg.Limits,
	}, docker, store, noTurn{}, s.log)
	return s, nil
}

// prepare lets go first, of what an earlier life of this sensor may have left,
// and then gets ready.
func (s *standby) prepare(ctx context.Context) {
	s.tell(func(r *update.Report) { r.Problem = "it has not let go of everything yet" })
	for !s.ground.clear(ctx) {
		if !wait(ctx, readyEvery) {
			return
		}
	}
	s.tell(func(r *update.Report) { r.Idle = true })
	var parts sync.WaitGroup
	parts.Go(func() { s.services.Run(ctx) })
	if s.side == update.New {
		parts.Go(func() { s.poll(ctx) })
	}
	for wait(ctx, readyEvery) {
		problem := s.unready(ctx)
		s.tell(func(r *update.Report) { r.Problem, r.Prepared = problem, problem == "" })
	}
	parts.Wait()
}

// wait returns false when ctx has ended.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// tell changes the report, and writes it when that has made a difference.
func (s *standby) tell(change func(*update.Report)) {
	s.mu.Lock()
	before := s.report
	change(&s.report)
	now := s.report
	s.mu.Unlock()
	if now.Idle == before.Idle && now.Prepared == before.Prepared && now.Problem == before.Problem {
		return
	}
	if err := s.journal.Report(s.side, now); err != nil {
		s.log.Warn("report is not written", zap.Error(err))
	}
}

// poll asks the server until it has answered once: it knows the services, and
// the way to it works.
func (s *standby) poll(ctx context.Context) {
	for ctx.Err() == nil {
		wanted, err := s.server.PostStatus(ctx, s.status())
		s.mu.Lock()
		s.pollAt = err
		if err == nil {
			s.polled = time.Now()
		}
		s.mu.Unlock()
		if err == nil {
			s.services.SetWanted(wantedServices(wanted.Services))
			return
		}
		wait(ctx, pollAgain)
	}
}

func (s *standby) status() hsapi.Status {
	status := hsapi.Status{State: hsapi.StateUpdating, Version: version.Revision, Known: s.setup.fingerprints()}
	if address, err := AddressOf(s.cfg.Interface); err == nil {
		status.IP = address
	}
	// Zeros are as good for the moment of an update.
	status.FreeMemory, _ = freeMemory()
	status.DiskUsage, status.DiskTotal, _ = disk(s.cfg.StateDir)
	return status
}

// unready says what is missing for the sensor to serve, or "".
func (s *standby) unready(ctx context.Context) string {
	s.mu.Lock()
	polled, pollErr := s.polled, s.pollAt
	s.mu.Unlock()
	if s.side == update.New && polled.IsZero() {
		if pollErr != nil {
			return "the server is not reached: " + pollErr.Error()
		}
		return "the server is not reached yet"
	}
	if err := s.services.EngineError(); err != nil {
		return err.Error()
	}
	if s.helper != nil {
		if _, err := s.helper.Health(ctx); err != nil {
			return err.Error()
		}
	}
	return s.missingImage()
}

func (s *standby) missingImage() string {
	states := s.services.States()
	for _, id := range s.record.Worked.Services {
		at := slices.IndexFunc(states, func(state services.State) bool { return state.ID == id })
		if at < 0 {
			return "service " + id + " is unknown"
		}
		if states[at].Status == services.Failed || states[at].Digest == "" {
			return fmt.Sprintf("service %s is not ready: %s", id, states[at].Reason)
		}
	}
	return ""
}

// Status is what there is to say while the other sensor serves.
func (s *standby) Status(context.Context) control.Status {
	settings := s.setup.settings()
	s.mu.Lock()
	report, polled := s.report, s.polled
	s.mu.Unlock()
	status := control.Status{
		Version: version.Revision, Platform: platform(), Started: s.started,
		Hostname: settings.Sensor.Hostname, SensorID: settings.Sensor.ID,
		Server:    control.ServerState{Address: s.server.Address(), Name: settings.Server.Name, Route: s.server.Route(), LastPoll: polled},
		Collector: control.CollectorState{Listening: []string{}},
		Services:  []control.ServiceState{},
		Update: control.UpdateState{
			Phase: string(s.record.Phase), Revision: s.record.Offer.Revision, Side: string(s.side), Since: s.record.Began, Problem: report.Problem,
		},
	}
	if r, err := s.journal.Read(); err == nil && r != nil {
		status.Update.Phase = string(r.Phase)
	}
	for _, state := range s.services.States() {
		status.Services = append(status.Services, serviceState(state))
	}
	return status
}

var errNotServing = errors.New("the other sensor of an update serves at the moment: ask that one")

// Poll does nothing: the other sensor polls.
func (s *standby) Poll() {}

// Events says who has them.
func (s *standby) Events(context.Context) (control.EventList, error) {
	return control.EventList{}, errNotServing
}

// RetryEvents says who has them.
func (s *standby) RetryEvents(context.Context, control.Retry) (int, error) { return 0, errNotServing }

// SelfTest says whom to ask.
func (s *standby) SelfTest(_ context.Context, tell func(control.TestFinding)) bool {
	tell(control.TestFinding{Verdict: string(selftest.Broken), Part: selftest.PartHelper, Text: errNotServing.Error()})
	return false
}

// OrderUpdate says whom to ask.
func (s *standby) OrderUpdate(control.UpdateOrder) error { return errNotServing }

// noTurn stands for the helper while the other sensor has the host's network.
type noTurn struct{}

func (noTurn) Apply(context.Context, []helperapi.Service) (helperapi.Observed, error) {
	return helperapi.Observed{}, errNoTurn()
}

func (noTurn) Observe(context.Context) (helperapi.Observed, error) {
	return helperapi.Observed{}, errNoTurn()
}

func errNoTurn() error {
	return &helperapi.Error{Kind: helperapi.KindUnavailable, Message: "the other sensor of an update has the network"}
}

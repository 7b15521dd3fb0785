package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"

	"honeysens.org/dockersensor/packaging/services/recon/internal/capture"
	"honeysens.org/dockersensor/packaging/services/recon/internal/catchall"
	"honeysens.org/dockersensor/packaging/services/recon/internal/report"
	"honeysens.org/dockersensor/packaging/services/recon/internal/tracker"
	"honeysens.org/dockersensor/shared/zmtp"
)

const (
	// expireEvery is how often sources are looked through.
	expireEvery = 500 * time.Millisecond
	// farewell is how long a service that is told to end may still report.
	farewell = 3 * time.Second
	// backlog is the number of probes on their way to the tracker. When it is
	// full, the kernel's buffer fills, and then the kernel drops.
	backlog = 1024
)

// run works until the context ends, then reports what it has collected.
func run(ctx context.Context, cfg config, limits tracker.Config, log *zap.Logger) error {
	sources, err := open(ctx, cfg, log)
	if err != nil {
		return err
	}
	defer sources.close(log)
	reporter := report.New(report.Config{}, func(ctx context.Context, body []byte) ([]byte, error) {
		return zmtp.Request(ctx, cfg.address(), body)
	}, log)
	log.Info("ready", zap.String("interface", cfg.iface), zap.Bool("raw", cfg.raw), zap.String("collector", cfg.address()))

	// Reports go on for a moment after everything else has ended.
	reporting, stopReporting := context.WithCancel(context.WithoutCancel(ctx))
	defer stopReporting()
	var sender sync.WaitGroup
	sender.Go(func() { reporter.Run(reporting) })

	err = collect(ctx, sources, tracker.New(limits), reporter, log)
	reporter.Close()
	timer := time.AfterFunc(farewell, stopReporting)
	defer timer.Stop()
	sender.Wait()
	return err
}

// collect groups probes until the context ends or a source of probes breaks.
func collect(ctx context.Context, sources *sources, t *tracker.Tracker, reporter *report.Reporter, log *zap.Logger) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	probes := make(chan tracker.Probe, backlog)
	take := func(p tracker.Probe) {
		select {
		case probes <- p:
		case <-ctx.Done():
		}
	}
	var producers sync.WaitGroup
	for _, produce := range sources.run {
		producers.Go(func() {
			if err := produce(ctx, take); err != nil {
				cancel(err)
			}
		})
	}
	group(ctx, t, probes, reporter, log)
	producers.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// group owns the tracker.
func group(ctx context.Context, t *tracker.Tracker, probes <-chan tracker.Probe, reporter *report.Reporter, log *zap.Logger) {
	tick := time.NewTicker(expireEvery)
	defer tick.Stop()
	losses := newLosses(t, reporter, log)
	for {
		select {
		case <-ctx.Done():
			for _, e := range t.Flush() {
				reporter.Put(e)
			}
			return
		case p := <-probes:
			if scan := t.Add(p); scan != nil {
				reporter.Put(*scan)
			}
		case now := <-tick.C:
			for _, e := range t.Expire(now) {
				reporter.Put(e)
			}
			losses.tell(now)
		}
	}
}

// losses says once a minute what did not fit.
type losses struct {
	tracker         *tracker.Tracker
	reporter        *report.Reporter
	log             *zap.Logger
	next            time.Time
	probes, dropped uint64
}

func newLosses(t *tracker.Tracker, r *report.Reporter, log *zap.Logger) *losses {
	return &losses{tracker: t, reporter: r, log: log}
}

func (l *losses) tell(now time.Time) {
	probes, dropped := l.tracker.Refused(), l.reporter.Dropped()
	if now.Before(l.next) || (probes == l.probes && dropped == l.dropped) {
		return
	}
	l.log.Warn("more than fits", zap.Uint64("probes_ignored", probes-l.probes), zap.Uint64("events_lost", dropped-l.dropped))
	l.next, l.probes, l.dropped = now.Add(time.Minute), probes, dropped
}

// sources are what probes come from.
type sources struct {
	run   []func(context.Context, func(tracker.Probe)) error
	rules *catchall.Rules
}

// open starts to capture, and, in a namespace of the honeypot's own, to answer.
func open(ctx context.Context, cfg config, log *zap.Logger) (*sources, error) {
	seen, err := capture.New(cfg.iface, cfg.collector)
	if err != nil {
		return nil, err
	}
	s := &sources{run: []func(context.Context, func(tracker.Probe)) error{seen.Run}}
	if cfg.raw {
		return s, nil
	}
	listener, err := catchall.Listen(ctx, catchall.DefaultLimits())
	if err != nil {
		return nil, err
	}
	s.run = append(s.run, listener.Run)
	s.rules, err = catchall.Install(cfg.iface, cfg.collector, listener.Port())
	if err != nil {
		// Scans are still seen; what attackers would say is not.
		log.Error("connections are not answered", zap.Error(err))
	}
	return s, nil
}

func (s *sources) close(log *zap.Logger) {
	if s.rules == nil {
		return
	}
	if err := s.rules.Remove(); err != nil {
		log.Warn("rules remain", zap.Error(err))
	}
}

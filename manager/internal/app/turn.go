package app

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"honeysens.org/dockersensor/manager/internal/control"
	"honeysens.org/dockersensor/manager/internal/update"
)

// againAfter is the pause before a manager tries again to serve during an update:
// the other sensor may not have let go yet.
const againAfter = 200 * time.Millisecond

// turns is the life of a manager: it serves, but for the time of an update in
// which the other sensor does.
type turns struct {
	cfg     Config
	level   zap.AtomicLevel
	log     *zap.Logger
	host    *update.Host
	journal *update.Journal
	setup   *setup
	// fresh: the setup was read and nobody else has had it since.
	fresh bool
}

// run returns when ctx ends, or when the manager cannot serve.
func (t *turns) run(ctx context.Context, mine bool, side update.Side, r *update.Record) error {
	turn := update.NewTurn(t.journal, t.host, t.cfg.Previous, t.log.Named("update"))
	for ctx.Err() == nil {
		if !mine {
			if err := t.standBy(ctx, turn, side, r); err != nil {
				return err
			}
		} else if err := t.serve(ctx); !t.goesOn(ctx, err) {
			return err
		}
		mine, side, r = turn.Mine(ctx)
	}
	return nil
}

// goesOn tells whether a manager that has ended is to look whose turn it is.
func (t *turns) goesOn(ctx context.Context, err error) bool {
	if errors.Is(err, update.ErrTurn) {
		return true
	}
	if err == nil || ctx.Err() != nil || errors.Is(err, errNewPorts) {
		return false
	}
	if r, readErr := t.journal.Read(); readErr != nil || !r.Conducted() {
		return false
	}
	t.log.Info("cannot serve yet", zap.Error(err))
	select {
	case <-time.After(againAfter):
	case <-ctx.Done():
	}
	return true
}

// serve is a whole life of a manager that serves.
func (t *turns) serve(ctx context.Context) error {
	if err := t.renew(); err != nil {
		return err
	}
	m, err := newManager(t.cfg, t.setup, t.log)
	if err != nil {
		return err
	}
	m.agent = t.agent(m)
	ctx, m.stop = context.WithCancelCause(ctx)
	defer m.stop(nil)
	m.run(ctx, control.NewServer(m, t.level, t.log.Named("control")))
	t.fresh = false
	m.server.Close()
	if err := m.spool.Close(); err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	cause := context.Cause(ctx)
	if errors.Is(cause, errNewPorts) || errors.Is(cause, update.ErrTurn) {
		return cause
	}
	return nil
}

func (t *turns) agent(m *manager) *update.Agent {
	return update.NewAgent(t.cfg.agent(), t.journal, update.Parts{
		Server: m.server, Host: t.host, Notice: m.notice, Worked: m.worked, Proof: m.proof,
	}, t.log.Named("update"))
}

// renew reads the settings anew: the other sensor may have changed them.
func (t *turns) renew() error {
	if t.fresh {
		return nil
	}
	setup, err := openSetup(t.cfg.Archive, t.log)
	if err != nil {
		return err
	}
	setup.resume(settingsJournal(t.cfg), time.Now())
	setup.ports = t.setup.ports
	t.setup, t.fresh = setup, true
	if setup.needsRestart() {
		return errNewPorts
	}
	return nil
}

func settingsJournal(cfg Config) journal {
	return journal(filepath.Join(cfg.StateDir, "settings.journal"))
}

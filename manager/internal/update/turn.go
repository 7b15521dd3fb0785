package update

import (
	"context"
	"time"

	"go.uber.org/zap"
)

// handOver is how often a sensor looks whose turn it is while it waits for it:
// attackers wait as long.
const handOver = 20 * time.Millisecond

// Turn tells a manager whether it is the one that serves.
type Turn struct {
	journal  *Journal
	host     Loader
	previous string
	log      *zap.Logger
	attended time.Time
}

// NewTurn returns the turn of the manager that was started to replace a compose
// project, or "".
func NewTurn(journal *Journal, host Loader, previous string, log *zap.Logger) *Turn {
	return &Turn{journal: journal, host: host, previous: previous, log: log}
}

// Mine tells whether this manager serves, and the update under way, or nil.
// With it comes the side that this one is.
func (t *Turn) Mine(ctx context.Context) (bool, Side, *Record) {
	r, err := t.journal.Read()
	if err != nil {
		// A sensor that serves twice is kept apart by the spool; one that does not
		// serve at all by nothing.
		t.log.Error("an unfinished update is ignored", zap.Error(err))
		return true, Old, nil
	}
	if !r.Conducted() {
		return true, Old, nil
	}
	side, _ := sideOf(ctx, t.host, r, t.previous)
	return r.Serving() == side, side, r
}

// Wait returns when it is this side's turn, or with ctx. It sees to it that the
// update has a conductor.
func (t *Turn) Wait(ctx context.Context, side Side) {
	for ctx.Err() == nil {
		r, err := t.journal.Read()
		if err == nil && (!r.Conducted() || r.Serving() == side) {
			return
		}
		if err == nil && time.Since(t.attended) > attendEvery {
			t.attended = time.Now()
			if err := t.host.Spawn(ctx, r); err != nil {
				t.log.Debug("conductor is not started", zap.Error(err))
			}
		}
		sleep(ctx, handOver)
	}
}

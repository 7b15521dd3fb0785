package update

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/zap"
)

// TestWhoseTurnItIs is what a manager finds at its start.
func TestWhoseTurnItIs(t *testing.T) {
	for name, c := range map[string]struct {
		phase    Phase
		done     bool
		project  string
		away     bool
		previous string
		side     Side
		mine     bool
	}{
		"no update":                          {project: "hs", side: Old, mine: true},
		"download":                           {phase: Downloaded, project: "hs", side: Old, mine: true},
		"old, prepared":                      {phase: Started, project: "hs", side: Old, mine: true},
		"new, prepared":                      {phase: Started, project: "hs-2", side: New},
		"old, on trial":                      {phase: Trial, project: "hs", side: Old},
		"new, on trial":                      {phase: Trial, project: "hs-2", side: New, mine: true},
		"old, rolled back":                   {phase: RolledBack, project: "hs", side: Old, mine: true},
		"new, rolled back":                   {phase: RolledBack, project: "hs-2", side: New},
		"new, committed":                     {phase: Committed, project: "hs-2", side: New, mine: true},
		"ended":                              {phase: Committed, done: true, project: "hs-2", side: Old, mine: true},
		"new, on trial, engine away":         {phase: Trial, away: true, previous: "hs", side: New, mine: true},
		"old, on trial, engine away":         {phase: Trial, away: true, side: Old},
		"old of a later update, engine away": {phase: Trial, away: true, previous: "before", side: Old},
		"new, prepared, engine away":         {phase: Started, away: true, previous: "hs", side: New},
	} {
		t.Run(name, func(t *testing.T) {
			j, host := NewJournal(t.TempDir()), &fakeHost{project: c.project, dir: "/opt/hs"}
			if c.away {
				host.away = errors.New("engine does not answer")
			}
			if c.phase != "" {
				r := someRecord()
				r.Phase, r.Done = c.phase, c.done
				if err := j.Write(r); err != nil {
					t.Fatal(err)
				}
			}
			mine, side, r := NewTurn(j, host, c.previous, zap.NewNop()).Mine(t.Context())
			if mine != c.mine || side != c.side || (r != nil) != r.Conducted() {
				t.Errorf("mine %v, side %q, record %v; want %v, %q", mine, side, r, c.mine, c.side)
			}
		})
	}
}

// TestTornJournalMeansToServe: two that want to serve are kept apart by the
// spool.
func TestTornJournalMeansToServe(t *testing.T) {
	j := NewJournal(t.TempDir())
	if err := os.WriteFile(filepath.Join(j.Dir(), journalFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if mine, _, r := NewTurn(j, &fakeHost{}, "", zap.NewNop()).Mine(t.Context()); !mine || r != nil {
		t.Errorf("mine %v, record %v", mine, r)
	}
}

func TestWaitEndsWithTheTurnOrItsContext(t *testing.T) {
	j, host := NewJournal(t.TempDir()), &fakeHost{project: "hs-2", dir: "/opt/hs"}
	r := someRecord()
	r.Phase, r.Done = Started, false
	if err := j.Write(r); err != nil {
		t.Fatal(err)
	}
	turn := NewTurn(j, host, "hs", zap.NewNop())
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	turn.Wait(ctx, New)
	if ctx.Err() == nil {
		t.Error("it did not wait")
	}
	if len(host.did) != 1 || host.did[0] != "spawn" {
		t.Errorf("the engine was told %v, want one conductor", host.did)
	}
	done := make(chan struct{})
	go func() {
		turn.Wait(t.Context(), New)
		close(done)
	}()
	r.Phase = Trial
	if err := j.Write(r); err != nil {
		t.Fatal(err)
	}
	<-done
}

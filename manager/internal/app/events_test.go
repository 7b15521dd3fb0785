package app

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"honeysens.org/dockersensor/manager/internal/control"
	"honeysens.org/dockersensor/manager/internal/spool"
	"honeysens.org/dockersensor/manager/internal/uploader"
	"honeysens.org/dockersensor/shared/event"
)

// noServer is never asked: the uploader of these tests does not run.
type noServer struct{}

func (noServer) PostEvents(context.Context, []byte) error { return context.Canceled }

// managerWith returns one with these events in quarantine.
func managerWith(t *testing.T, events ...string) *manager {
	t.Helper()
	log := zaptest.NewLogger(t)
	s, err := spool.Open(spool.Config{Path: filepath.Join(t.TempDir(), "events.db")}, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, text := range events {
		id, err := s.Append(t.Context(), event.Record{Origin: "4", Received: time.Now(), Event: []byte(text)})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Quarantine(t.Context(), id, "the server refuses the content"); err != nil {
			t.Fatal(err)
		}
	}
	return &manager{spool: s, uploader: uploader.New(uploader.Config{}, s, noServer{}, log)}
}

func TestEventsInQuarantine(t *testing.T) {
	m := managerWith(t, `{"source":"192.0.2.66","summary":"first"}`, "not JSON")
	list, err := m.Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if list.Counts.Quarantined != 2 || len(list.Quarantine) != 2 {
		t.Fatalf("listed: %+v", list)
	}
	first := list.Quarantine[0]
	if first.Source != "192.0.2.66" || first.Summary != "first" || first.Service != "4" || first.Reason != "the server refuses the content" {
		t.Errorf("first: %+v", first)
	}
	if second := list.Quarantine[1]; second.Summary == "" {
		t.Errorf("second: %+v", second)
	}
}

func TestRetryEvents(t *testing.T) {
	tests := []struct {
		name                   string
		retry                  func(ids []uint64) control.Retry
		waiting, left, retried int
	}{
		{"one", func(ids []uint64) control.Retry { return control.Retry{IDs: ids[1:2]} }, 1, 2, 1},
		{"one of them unknown", func(ids []uint64) control.Retry { return control.Retry{IDs: []uint64{ids[0], 9999}} }, 1, 2, 1},
		{"all", func([]uint64) control.Retry { return control.Retry{All: true} }, 3, 0, 3},
		{"none is not all", func([]uint64) control.Retry { return control.Retry{} }, 0, 3, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m := managerWith(t, `{"summary":"a"}`, `{"summary":"b"}`, `{"summary":"c"}`)
			before, err := m.Events(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var ids []uint64
			for _, e := range before.Quarantine {
				ids = append(ids, e.ID)
			}
			n, err := m.RetryEvents(t.Context(), test.retry(ids))
			if n != test.retried || (err != nil) != (test.retried == 0) {
				t.Errorf("%d retried, error %v", n, err)
			}
			if stats := m.spool.Stats(); stats.Waiting != test.waiting || stats.Quarantined != test.left {
				t.Errorf("%d wait, %d in quarantine", stats.Waiting, stats.Quarantined)
			}
		})
	}
}

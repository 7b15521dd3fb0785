package uploader

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"honeysens.org/dockersensor/manager/internal/spool"
	"honeysens.org/dockersensor/shared/event"
	"honeysens.org/dockersensor/shared/event/eventtest"
)

// Summaries that the server of these tests cannot stand.
const (
	badContent = "bad content"
	badFault   = "bad fault"
)

var errNetwork = errors.New("connection refused")

// server takes events as a HoneySens server does: all of a request or nothing,
// and the same event twice.
type server struct {
	mu       sync.Mutex
	stored   []string
	requests []int
	times    []time.Time
	// down, when not nil, is the answer to everything.
	down error
}

func (s *server) PostEvents(_ context.Context, list []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	events, err := eventtest.Store(list)
	s.requests = append(s.requests, len(events))
	s.times = append(s.times, time.Now())
	switch {
	case s.down != nil:
		return s.down
	case err != nil:
		return err
	}
	for _, e := range events {
		switch {
		case strings.HasPrefix(e.Summary, badContent):
			return &eventtest.Refusal{Status: 400, Why: "bad"}
		case strings.HasPrefix(e.Summary, badFault):
			return &eventtest.Refusal{Status: 500, Why: "bad"}
		}
	}
	for _, e := range events {
		s.stored = append(s.stored, e.Summary)
	}
	return nil
}

func (s *server) set(down error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

func (s *server) summaries() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(slices.Values(s.stored))
}

func (s *server) requestSizes() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

type fixture struct {
	t      *testing.T
	spool  *spool.Spool
	server *server
	*Uploader
}

// memoryDir is a directory that syncs at once, where there is one: these tests
// are about the order of things, not about the disk.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "uploader") //nolint:usetesting // t.TempDir is on a disk
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// inBubble runs a test with time that passes only when everybody waits. The
// spool is filled before the uploader runs.
func inBubble(t *testing.T, cfg Config, server *server, before []string, test func(*fixture)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s, err := spool.Open(spool.Config{Path: filepath.Join(memoryDir(t), "spool.db")}, zap.NewNop())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = s.Close() }()
		f := &fixture{t: t, spool: s, server: server, Uploader: New(cfg, s, server, zap.NewNop())}
		f.add(before...)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			f.Run(ctx)
		}()
		test(f)
		cancel()
		<-done
	})
}

// add keeps events, in order.
func (f *fixture) add(summaries ...string) {
	f.t.Helper()
	for _, summary := range summaries {
		e := event.Event{Timestamp: time.Now().Unix(), Service: 1, Source: "192.0.2.1", Summary: summary}
		encoded, err := json.Marshal(e)
		if err != nil {
			f.t.Fatal(err)
		}
		if _, err := f.spool.Append(f.t.Context(), event.Record{Received: time.Now(), Event: encoded}); err != nil {
			f.t.Fatal(err)
		}
	}
}

// pass lets time pass.
func (f *fixture) pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func (f *fixture) wantStored(want ...string) {
	f.t.Helper()
	if diff := cmp.Diff(slices.Sorted(slices.Values(want)), f.server.summaries()); diff != "" {
		f.t.Fatalf("stored (-want +got):\n%s", diff)
	}
}

func (f *fixture) wantQuarantined(want ...string) {
	f.t.Helper()
	list, err := f.spool.ListQuarantine(1000)
	if err != nil {
		f.t.Fatal(err)
	}
	var got []string
	for _, q := range list {
		var e event.Event
		if err := json.Unmarshal(q.Event, &e); err != nil {
			f.t.Fatal(err)
		}
		got = append(got, e.Summary)
	}
	slices.Sort(got)
	if diff := cmp.Diff(slices.Sorted(slices.Values(want)), got); diff != "" {
		f.t.Fatalf("quarantine (-want +got):\n%s", diff)
	}
}

func (f *fixture) wantWaiting(want int) {
	f.t.Helper()
	if got := f.spool.Stats().Waiting; got != want {
		f.t.Fatalf("%d events wait, want %d", got, want)
	}
}

func names(prefix string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%s %05d", prefix, i)
	}
	return out
}

func TestLoneEventLeavesAtOnce(t *testing.T) {
	inBubble(t, Config{}, &server{}, nil, func(f *fixture) {
		f.pass(time.Hour)
		f.add("a")
		synctest.Wait()
		f.wantStored("a")
		f.wantWaiting(0)
		if state := f.State(); state.Sent != 1 || state.Error != "" || !state.LastSent.Equal(time.Now()) {
			t.Errorf("state %+v", state)
		}
	})
}

// TestSteadyFlow has an event every 50 ms: it must not be a request for each.
func TestSteadyFlow(t *testing.T) {
	inBubble(t, Config{}, &server{}, nil, func(f *fixture) {
		want := names("event", 100)
		for _, name := range want {
			f.add(name)
			f.pass(50 * time.Millisecond)
		}
		f.pass(time.Second)
		f.wantStored(want...)
		if n := len(f.server.requestSizes()); n > 30 {
			t.Errorf("%d requests in five seconds", n)
		}
	})
}

func TestFloodLeavesInFullRequests(t *testing.T) {
	want := names("event", 1200)
	inBubble(t, Config{}, &server{}, want, func(f *fixture) {
		f.pass(time.Second)
		f.wantStored(want...)
		if diff := cmp.Diff([]int{500, 500, 200}, f.server.requestSizes()); diff != "" {
			t.Errorf("requests (-want +got):\n%s", diff)
		}
	})
}

// TestLargeEvents fills requests by their size: the server of the tests refuses
// more than a megabyte.
func TestLargeEvents(t *testing.T) {
	inBubble(t, Config{}, &server{}, nil, func(f *fixture) {
		f.server.set(errNetwork)
		for i := range 12 {
			e := event.Event{Timestamp: 1, Service: 1, Summary: fmt.Sprint(i)}
			for range 600 {
				e.Details = append(e.Details, event.Detail{Timestamp: 1, Data: strings.Repeat("x", 250)})
			}
			encoded, err := json.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.spool.Append(f.t.Context(), event.Record{Received: time.Now(), Event: encoded}); err != nil {
				t.Fatal(err)
			}
		}
		f.server.set(nil)
		f.pass(time.Minute)
		f.wantWaiting(0)
		f.wantQuarantined()
		if got := len(f.server.summaries()); got != 12 {
			t.Errorf("%d events stored", got)
		}
	})
}

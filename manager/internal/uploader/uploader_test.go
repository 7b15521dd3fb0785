package uploader

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
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

// TestBadEvents puts bad ones at every place of a batch.
func TestBadEvents(t *testing.T) {
	for _, at := range []int{0, 1, 250, 498, 499} {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			good := names("event", 499)
			inBubble(t, Config{}, &server{}, slices.Insert(slices.Clone(good), at, badContent), func(f *fixture) {
				f.pass(5 * time.Second)
				f.wantStored(good...)
				f.wantQuarantined(badContent)
				f.wantWaiting(0)
				if n := len(f.server.requestSizes()); n > 35 {
					t.Errorf("%d requests", n)
				}
				if state := f.State(); state.Quarantined != 1 || state.Sent != 499 || state.Error != "" {
					t.Errorf("state %+v", state)
				}
			})
		})
	}
}

func TestManyBadEvents(t *testing.T) {
	bad := names(badContent, 20)
	all := slices.Concat(bad[:10], []string{"a"}, bad[10:], []string{"b", "c", "d", "e", "f"})
	inBubble(t, Config{}, &server{}, all, func(f *fixture) {
		f.pass(time.Minute)
		f.wantStored("a", "b", "c", "d", "e", "f")
		// Others come now and then, and with each of them some are found out.
		for range 20 {
			f.add("later")
			f.pass(time.Minute)
		}
		f.wantQuarantined(bad...)
		f.wantWaiting(0)
	})
}

// TestEventThatTheServerFailsOn is passed by at once, and given up only after
// several attempts while others were taken.
func TestEventThatTheServerFailsOn(t *testing.T) {
	inBubble(t, Config{}, &server{}, []string{"a", badFault, "b"}, func(f *fixture) {
		f.pass(5 * time.Second)
		f.wantStored("a", "b")
		f.wantQuarantined()
		f.wantWaiting(1)
		f.pass(24 * time.Hour)
		f.wantQuarantined()
		for i := range 4 {
			f.add(fmt.Sprint(i))
			f.pass(3 * time.Minute)
		}
		f.wantStored("a", "b", "0", "1", "2", "3")
		f.wantQuarantined(badFault)
		f.wantWaiting(0)
	})
}

// TestLoneBadEvent has no other beside it: nobody can tell it from an outage.
func TestLoneBadEvent(t *testing.T) {
	for _, summary := range []string{badContent, badFault} {
		t.Run(summary, func(t *testing.T) {
			inBubble(t, Config{}, &server{}, []string{summary}, func(f *fixture) {
				f.pass(24 * time.Hour)
				f.wantQuarantined()
				f.wantWaiting(1)
				if n := len(f.server.requestSizes()); n > 24*60*3 {
					t.Errorf("%d requests in a day", n)
				}
				if f.State().Error == "" {
					t.Error("no error is shown")
				}
			})
		})
	}
}

// TestKnownSensor has polls that the server takes, which tells about content
// only.
func TestKnownSensor(t *testing.T) {
	for summary, guilty := range map[string]bool{badContent: true, badFault: false} {
		t.Run(summary, func(t *testing.T) {
			cfg := Config{Known: func() time.Time { return time.Now().Truncate(5 * time.Minute) }}
			inBubble(t, cfg, &server{}, []string{summary}, func(f *fixture) {
				f.pass(time.Hour)
				if !guilty {
					f.wantQuarantined()
					return
				}
				f.wantQuarantined(summary)
				if state := f.State(); state.Error != "" {
					t.Errorf("state %+v", state)
				}
			})
		})
	}
}

// TestOutages refuse everything for hours, in all ways: nothing is set aside,
// nothing is lost, nothing comes twice.
func TestOutages(t *testing.T) {
	for name, down := range map[string]error{
		"server fails":   &eventtest.Refusal{Status: 500, Why: "Connection refused [tcp://127.0.0.1:16379]"},
		"sensor unknown": &eventtest.Refusal{Status: 400, Why: `{"code":0}`},
		"wrong clock":    &eventtest.Refusal{Status: 403, Why: `{"code":0}`},
		"network":        errNetwork,
	} {
		t.Run(name, func(t *testing.T) {
			before, during := names("before", 550), names("during", 60)
			inBubble(t, Config{}, &server{down: down}, before, func(f *fixture) {
				for _, name := range during {
					f.add(name)
					f.pass(time.Minute)
				}
				if n := len(f.server.requestSizes()); n > 200 {
					t.Errorf("%d requests in an hour", n)
				}
				state := f.State()
				if state.Error != down.Error() && !strings.HasSuffix(state.Error, down.Error()) || time.Until(state.NextTry) > time.Minute {
					t.Errorf("state %+v", state)
				}
				f.server.set(nil)
				f.pass(2 * time.Minute)
				f.wantStored(slices.Concat(before, during)...)
				f.wantQuarantined()
				f.wantWaiting(0)
				if got := f.State(); got.Error != "" || got.Suspects != 0 {
					t.Errorf("state %+v", got)
				}
			})
		})
	}
}

func TestWaitsGrowToAMinute(t *testing.T) {
	inBubble(t, Config{}, &server{down: errNetwork}, []string{"a"}, func(f *fixture) {
		f.pass(time.Hour)
		times := f.server.times
		if first := times[1].Sub(times[0]); first > time.Second {
			t.Errorf("first wait %v", first)
		}
		longest := time.Duration(0)
		for i := range times[1:] {
			longest = max(longest, times[i+1].Sub(times[i]))
		}
		if longest > time.Minute || longest < 30*time.Second {
			t.Errorf("longest wait %v", longest)
		}
		// A kick ends a wait, news from honeypots do not.
		n := len(times)
		f.add("b")
		synctest.Wait()
		if got := len(f.server.requestSizes()); got != n {
			t.Errorf("%d requests after an event, want %d", got, n)
		}
		f.server.set(nil)
		f.Kick()
		synctest.Wait()
		f.wantStored("a", "b")
	})
}

// TestLossIsReported once the server takes events.
func TestLossIsReported(t *testing.T) {
	cfg := Config{Source: func() string { return "203.0.113.9" }}
	server := &server{down: errNetwork}
	synctest.Test(t, func(t *testing.T) {
		s, err := spool.Open(spool.Config{Path: filepath.Join(memoryDir(t), "spool.db"), MaxBytes: 1000}, zap.NewNop())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = s.Close() }()
		f := &fixture{t: t, spool: s, server: server, Uploader: New(cfg, s, server, zap.NewNop())}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			f.Run(ctx)
		}()
		f.add("first")
		f.pass(time.Second)
		f.add(names("event", 50)...)
		lost := s.Stats().Lost
		f.pass(time.Hour)
		if got := s.Stats(); len(got.Unreported) != 1 || lost == 0 {
			t.Fatalf("stats %+v", got)
		}
		server.set(nil)
		f.pass(3 * time.Minute)
		if want := fmt.Sprintf("Sensor lost %d events", lost); !slices.Contains(server.summaries(), want) {
			t.Errorf("%q is not among %q", want, server.summaries())
		}
		cancel()
		<-done
	})
}

func TestLossEvent(t *testing.T) {
	u := New(Config{Source: func() string { return "203.0.113.9" }}, nil, nil, zap.NewNop())
	at := time.Unix(1795473723, 0)
	r, err := u.lossEvent([]event.Loss{
		{Why: "the spool was full", Count: 7, From: at, To: at.Add(time.Hour)},
		{Why: "the spool was damaged", From: at, To: at},
	})
	if err != nil {
		t.Fatal(err)
	}
	stored, err := eventtest.Store(fmt.Appendf(nil, "[%s]", r.Event))
	if err != nil {
		t.Fatal(err)
	}
	got := stored[0]
	if got.Source != "203.0.113.9" || got.Summary != "Sensor lost 7 events or more" {
		t.Errorf("event %+v", got)
	}
	want := []string{
		"7 events received from 2026-11-23T22:42:03Z to 2026-11-23T23:42:03Z: the spool was full",
		"an unknown number of events received from 2026-11-23T22:42:03Z to 2026-11-23T22:42:03Z: the spool was damaged",
	}
	for i, detail := range got.Details {
		if detail.Data != want[i] {
			t.Errorf("detail %q, want %q", detail.Data, want[i])
		}
	}
}

func TestUnreadableRecordIsSetAside(t *testing.T) {
	inBubble(t, Config{}, &server{}, nil, func(f *fixture) {
		if _, err := f.spool.Append(f.t.Context(), event.Record{Event: []byte("{")}); err != nil {
			t.Fatal(err)
		}
		f.add("a")
		f.pass(time.Second)
		f.wantStored("a")
		f.wantWaiting(0)
		if got := f.spool.Stats().Quarantined; got != 1 {
			t.Errorf("%d in quarantine", got)
		}
	})
}

// brokenAck is a spool on a disk that cannot be written for a time.
type brokenAck struct {
	*spool.Spool
	mu  sync.Mutex
	err error
}

func (b *brokenAck) Ack(ctx context.Context, ids ...uint64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return b.err
	}
	return b.Spool.Ack(ctx, ids...)
}

// TestSentEventIsNotSentTwice although the spool cannot remove it.
func TestSentEventIsNotSentTwice(t *testing.T) {
	server := &server{}
	inBubble(t, Config{}, server, nil, func(f *fixture) {
		broken := &brokenAck{Spool: f.spool, err: errors.New("no space left on device")}
		u := New(Config{}, broken, server, zap.NewNop())
		f.server.set(errNetwork)
		f.add("a", "b")
		f.pass(time.Second)
		f.server.set(nil)
		for range 3 {
			if _, err := u.round(f.t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		f.wantStored("a", "b")
		broken.mu.Lock()
		broken.err = nil
		broken.mu.Unlock()
		if _, err := u.round(f.t.Context()); err != nil {
			t.Fatal(err)
		}
		f.wantWaiting(0)
	})
}

// TestChance mixes good and bad events with outages, as chance has it.
func TestChance(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			chance := rand.New(rand.NewPCG(seed, 1))
			downs := []error{nil, nil, errNetwork, &eventtest.Refusal{Status: 500}, &eventtest.Refusal{Status: 400}}
			inBubble(t, Config{}, &server{}, nil, func(f *fixture) {
				var good, bad []string
				for i := range 150 {
					switch name := fmt.Sprint(i); chance.IntN(10) {
					case 0:
						bad = append(bad, badContent+name)
						f.add(badContent + name)
					case 1:
						bad = append(bad, badFault+name)
						f.add(badFault + name)
					case 2:
						synctest.Wait()
						f.server.set(downs[chance.IntN(len(downs))])
						f.pass(time.Duration(chance.Int64N(int64(time.Minute))))
					default:
						good = append(good, name)
						f.add(name)
					}
				}
				synctest.Wait()
				f.server.set(nil)
				for i := range 200 {
					name := fmt.Sprint("later ", i)
					good = append(good, name)
					f.add(name)
					f.pass(time.Minute)
				}
				f.wantStored(good...)
				f.wantQuarantined(bad...)
				f.wantWaiting(0)
			})
		})
	}
}

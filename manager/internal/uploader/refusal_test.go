package uploader

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"honeysens.org/dockersensor/manager/internal/spool"
	"honeysens.org/dockersensor/shared/event"
	"honeysens.org/dockersensor/shared/event/eventtest"
)

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
			before, during := names("before", 550), names("during", 30)
			inBubble(t, Config{}, &server{down: down}, before, func(f *fixture) {
				for _, name := range during {
					f.add(name)
					f.pass(time.Minute)
				}
				if n := len(f.server.requestSizes()); n > 150 {
					t.Errorf("%d requests in half an hour", n)
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
	for seed := range uint64(8) {
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

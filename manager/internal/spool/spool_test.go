package spool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"honeysens.org/dockersensor/shared/event"
)

// helperEnv makes the test binary a producer of events on the spool it names.
const helperEnv = "SPOOL_TEST_PRODUCER"

func TestMain(m *testing.M) {
	if path := os.Getenv(helperEnv); path != "" {
		produce(path)
	}
	if path := os.Getenv(openerEnv); path != "" {
		os.Exit(openAndDrop(path))
	}
	os.Exit(m.Run())
}

// produce appends until it is killed, and prints what was acknowledged.
func produce(path string) {
	s, err := Open(Config{Path: path}, zap.NewNop())
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	for worker := range 8 {
		go func() {
			for n := 0; ; n++ {
				text := fmt.Sprintf("%d-%d", worker, n)
				if _, err := s.Append(context.Background(), event.Record{Received: time.Now(), Event: []byte(text)}); err != nil {
					fmt.Println("error", err)
					os.Exit(1)
				}
				// One write a line, not buffered: what is read was acknowledged.
				fmt.Println(text)
			}
		}()
	}
	select {}
}

func open(t testing.TB, cfg Config) *Spool {
	t.Helper()
	s, err := Open(cfg, zaptest.NewLogger(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func reopen(t testing.TB, s *Spool) *Spool {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return open(t, s.cfg)
}

func at(seconds int64) time.Time { return time.Unix(seconds, 0) }

func appendText(t testing.TB, s *Spool, received int64, text string) uint64 {
	t.Helper()
	id, err := s.Append(t.Context(), event.Record{Origin: "7", Received: at(received), Event: []byte(text)})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func peek(t testing.TB, s *Spool) []event.Record {
	t.Helper()
	records, err := s.Peek(t.Context(), 100_000, 1<<30, nil)
	if err != nil {
		t.Fatal(err)
	}
	return records
}

func texts(records []event.Record) []string {
	var out []string
	for _, r := range records {
		out = append(out, string(r.Event))
	}
	return out
}

func wantTexts(t testing.TB, s *Spool, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, texts(peek(t, s))); diff != "" {
		t.Fatalf("waiting events (-want +got):\n%s", diff)
	}
}

func path(t testing.TB) string { return filepath.Join(t.TempDir(), "spool.db") }

func TestEventsStayUntilAcknowledged(t *testing.T) {
	s := open(t, Config{Path: path(t)})
	first, second := appendText(t, s, 1, "a"), appendText(t, s, 2, "b")
	want := []event.Record{
		{ID: first, Origin: "7", Received: at(1), Event: []byte("a")},
		{ID: second, Origin: "7", Received: at(2), Event: []byte("b")},
	}
	if diff := cmp.Diff(want, peek(t, s)); diff != "" {
		t.Fatalf("records (-want +got):\n%s", diff)
	}
	s = reopen(t, s)
	if err := s.Ack(t.Context(), first, 999); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, s)
	wantTexts(t, s, "b")
	if third := appendText(t, s, 3, "c"); third <= second {
		t.Errorf("id %d after %d", third, second)
	}
	stats := s.Stats()
	if stats.Waiting != 2 || !stats.Oldest.Equal(at(2)) || stats.Lost != 0 {
		t.Errorf("stats %+v", stats)
	}
}

func TestPeekLimits(t *testing.T) {
	s := open(t, Config{Path: path(t)})
	second := uint64(0)
	for i, text := range []string{"aaaa", "bbbb", "cccc", "dddd"} {
		if id := appendText(t, s, int64(i), text); i == 1 {
			second = id
		}
	}
	tests := []struct {
		name        string
		n, maxBytes int
		skip        func(uint64) bool
		want        []string
	}{
		{"count", 2, 100, nil, []string{"aaaa", "bbbb"}},
		{"bytes", 9, 11, nil, []string{"aaaa", "bbbb"}},
		{"first alone is larger", 9, 1, nil, []string{"aaaa"}},
		{"skip", 2, 100, func(id uint64) bool { return id == second }, []string{"aaaa", "cccc"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			records, err := s.Peek(t.Context(), tt.n, tt.maxBytes, tt.skip)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, texts(records)); diff != "" {
				t.Errorf("records (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAppendRefuses(t *testing.T) {
	s := open(t, Config{Path: path(t)})
	for name, r := range map[string]event.Record{
		"empty event": {},
		"huge event":  {Event: make([]byte, maxEvent+1)},
		"long origin": {Event: []byte("x"), Origin: strings.Repeat("x", 256)},
	} {
		if _, err := s.Append(t.Context(), r); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Append(ctx, event.Record{Event: []byte("x")}); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("ended context: error %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Append(t.Context(), event.Record{Event: []byte("x")}); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: error %v", err)
	}
}

func TestWake(t *testing.T) {
	s := open(t, Config{Path: path(t)})
	select {
	case <-s.Wake():
		t.Fatal("an empty spool wakes")
	default:
	}
	id := appendText(t, s, 1, "a")
	<-s.Wake()
	if err := s.Ack(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.Wake():
		t.Fatal("an acknowledgement wakes")
	default:
	}
	appendText(t, s, 1, "b")
	s = reopen(t, s)
	<-s.Wake()
}

// TestFullSpoolDropsTheOldest and counts them over restarts.
func TestFullSpoolDropsTheOldest(t *testing.T) {
	body := strings.Repeat("x", 1000)
	s := open(t, Config{Path: path(t), MaxBytes: 5 * 1100})
	for i := range int64(8) {
		appendText(t, s, 100+i, fmt.Sprintf("%d%s", i, body))
	}
	s = reopen(t, s)
	appendText(t, s, 108, "8"+body)
	stats := s.Stats()
	want := []event.Loss{{Why: whyFull, Count: 4, From: at(100), To: at(103)}}
	if diff := cmp.Diff(want, stats.Unreported); diff != "" {
		t.Fatalf("losses (-want +got):\n%s", diff)
	}
	if stats.Waiting != 5 || stats.Lost != 4 || stats.WaitingBytes > stats.MaxBytes {
		t.Errorf("stats %+v", stats)
	}
	if got := string(peek(t, s)[0].Event[:1]); got != "4" {
		t.Errorf("oldest is %s, want 4", got)
	}
}

func TestLossesBecomeAnEvent(t *testing.T) {
	s := open(t, Config{Path: path(t), MaxBytes: 100})
	appendText(t, s, 1, strings.Repeat("a", 60))
	appendText(t, s, 2, strings.Repeat("b", 60))
	failing := func([]event.Loss) (event.Record, error) { return event.Record{}, errors.New("no") }
	if _, err := s.ReportLosses(t.Context(), failing); err == nil {
		t.Fatal("the error of render is lost")
	}
	render := func(losses []event.Loss) (event.Record, error) {
		return event.Record{Received: at(3), Event: fmt.Appendf(nil, "%d lost", losses[0].Count)}, nil
	}
	for _, want := range []bool{true, false} {
		reported, err := s.ReportLosses(t.Context(), render)
		if err != nil || reported != want {
			t.Fatalf("reported %t, error %v, want %t", reported, err, want)
		}
	}
	s = reopen(t, s)
	wantTexts(t, s, strings.Repeat("b", 60), "1 lost")
	if stats := s.Stats(); stats.Lost != 1 || len(stats.Unreported) != 0 {
		t.Errorf("stats %+v", stats)
	}
}

func TestQuarantine(t *testing.T) {
	s := open(t, Config{Path: path(t), MaxQuarantine: 60})
	a, b, c := appendText(t, s, 1, "aaaaaaaaaa"), appendText(t, s, 2, "bbbbbbbbbb"), appendText(t, s, 3, "cccccccccc")
	for _, id := range []uint64{a, b, c, 999} {
		if err := s.Quarantine(t.Context(), id, fmt.Sprintf("reason %d", id)); err != nil {
			t.Fatal(err)
		}
	}
	appendText(t, s, 4, "d")
	s = reopen(t, s)
	wantTexts(t, s, "d")
	list, err := s.ListQuarantine(10)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, q := range list {
		got = append(got, fmt.Sprintf("%s %s", q.Event, q.Reason))
	}
	if diff := cmp.Diff([]string{"bbbbbbbbbb reason 2", "cccccccccc reason 3"}, got); diff != "" {
		t.Fatalf("quarantine (-want +got):\n%s", diff)
	}
	stats := s.Stats()
	if diff := cmp.Diff([]event.Loss{{Why: whyQuarantine, Count: 1, From: at(1), To: at(1)}}, stats.Unreported); diff != "" {
		t.Errorf("losses (-want +got):\n%s", diff)
	}
	if n, err := s.RetryQuarantine(t.Context(), b, 999); n != 1 || err != nil {
		t.Fatalf("retried %d, error %v", n, err)
	}
	if n, err := s.RetryQuarantine(t.Context()); n != 1 || err != nil {
		t.Fatalf("retried %d, error %v", n, err)
	}
	wantTexts(t, s, "d", "bbbbbbbbbb", "cccccccccc")
	if stats := s.Stats(); stats.Quarantined != 0 || stats.QuarantineBytes != 0 {
		t.Errorf("stats %+v", stats)
	}
}

func TestSecondProcessIsRefused(t *testing.T) {
	s := open(t, Config{Path: path(t)})
	_, err := Open(Config{Path: s.cfg.Path, LockTimeout: time.Millisecond}, zaptest.NewLogger(t))
	if !errors.Is(err, errLocked) {
		t.Fatalf("error %v, want %v", err, errLocked)
	}
	appendText(t, s, 1, "still works")
}

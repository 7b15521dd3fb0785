package spool

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	"golang.org/x/sys/unix"

	"honeysens.org/dockersensor/shared/event"
)

// helperEnv makes the test binary a producer of events on the spool it names.
const helperEnv = "SPOOL_TEST_PRODUCER"

func TestMain(m *testing.M) {
	if path := os.Getenv(helperEnv); path != "" {
		produce(path)
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

// TestKill kills a producer and wants everything that it was told is safe.
func TestKill(t *testing.T) {
	file := path(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), helperEnv+"="+file)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	acknowledged := map[string]bool{}
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "error") {
			t.Fatal(lines.Text())
		}
		acknowledged[lines.Text()] = true
		if len(acknowledged) == 200 {
			_ = cmd.Process.Kill()
		}
	}
	_ = cmd.Wait()
	if len(acknowledged) < 200 {
		t.Fatalf("%d acknowledged", len(acknowledged))
	}
	s := open(t, Config{Path: file})
	for _, text := range texts(peek(t, s)) {
		delete(acknowledged, text)
	}
	if len(acknowledged) > 0 {
		t.Errorf("%d acknowledged events are gone: %v", len(acknowledged), acknowledged)
	}
}

// TestDamage breaks the file in the ways that disks do.
func TestDamage(t *testing.T) {
	const events = 300
	tests := []struct {
		name   string
		damage func([]byte) []byte
		// least is how many events must be left.
		least int
	}{
		{"no bbolt file", func([]byte) []byte { return bytes.Repeat([]byte("garbage "), 10_000) }, 0},
		{"one byte", func([]byte) []byte { return []byte("x") }, 0},
		{"cut", func(b []byte) []byte { return b[:40_000] }, 0},
		{"both heads gone", func(b []byte) []byte { clear(b[:8192]); return b }, 0},
		{"one event changed", func(b []byte) []byte {
			b[bytes.LastIndex(b, []byte("event-150-"))] ^= 1
			return b
		}, events - 1},
		{"all pages but the heads gone", func(b []byte) []byte { clear(b[8192:]); return b }, 0},
		{"a page in the middle gone", func(b []byte) []byte {
			page := bytes.LastIndex(b, []byte("event-150-")) &^ 4095
			clear(b[page : page+4096])
			return b
		}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t, Config{Path: path(t), MaxBytes: 1 << 20})
			fill(t, s, events)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			content, err := os.ReadFile(s.cfg.Path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(s.cfg.Path, tt.damage(content), 0o600); err != nil {
				t.Fatal(err)
			}
			s = open(t, s.cfg)
			if _, err := os.Stat(s.cfg.Path + damagedSuffix); err != nil {
				t.Errorf("the damaged file is not put aside: %v", err)
			}
			if got := s.Stats(); got.Waiting < tt.least || got.Waiting >= events || len(got.Unreported) != 1 {
				t.Errorf("stats %+v, want at least %d events and a loss", got, tt.least)
			}
			appendText(t, s, 1, "new")
			s = reopen(t, s)
			if got := texts(peek(t, s)); got[len(got)-1] != "new" {
				t.Errorf("last event is %q", got[len(got)-1])
			}
		})
	}
}

// fill appends events in few transactions.
func fill(t testing.TB, s *Spool, n int) {
	t.Helper()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			body := "event-" + strconv.Itoa(i) + "-" + strings.Repeat("x", 300)
			if _, err := s.Append(t.Context(), event.Record{Received: at(1), Event: []byte(body)}); err != nil {
				t.Errorf("append: %v", err)
			}
		})
	}
	wg.Wait()
}

// mountDisk makes a small file system of the test's own.
func mountDisk(t *testing.T, flags uintptr) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", flags, "size=1m"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("mount: %v", err)
		}
		t.Skipf("mount: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

func TestFullDisk(t *testing.T) {
	dir := mountDisk(t, 0)
	s := open(t, Config{Path: filepath.Join(dir, "spool.db")})
	kept := []string{}
	var refused error
	for i := 0; refused == nil; i++ {
		if i == 1000 {
			t.Fatal("a megabyte holds a thousand events of ten kilobytes")
		}
		text := fmt.Sprintf("%d-%s", i, strings.Repeat("x", 10_000))
		if _, refused = s.Append(t.Context(), event.Record{Received: at(1), Event: []byte(text)}); refused == nil {
			kept = append(kept, text)
		}
	}
	if s.Stats().Problem == "" {
		t.Error("the problem is not shown")
	}
	s = reopen(t, s)
	wantTexts(t, s, kept...)
	for _, r := range peek(t, s)[:len(kept)/2] {
		if err := s.Ack(t.Context(), r.ID); err != nil {
			t.Fatalf("acknowledge on a full disk: %v", err)
		}
	}
	appendText(t, s, 2, "there is room again")
	if got := s.Stats().Problem; got != "" {
		t.Errorf("the problem is still shown: %s", got)
	}
}

func TestReadOnlyDisk(t *testing.T) {
	dir := mountDisk(t, unix.MS_RDONLY)
	if _, err := Open(Config{Path: filepath.Join(dir, "spool.db")}, zaptest.NewLogger(t)); !errors.Is(err, unix.EROFS) {
		t.Fatalf("error %v, want %v", err, unix.EROFS)
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, producers := range []int{1, 8, 64} {
		b.Run(strconv.Itoa(producers), func(b *testing.B) {
			s, err := Open(Config{Path: path(b)}, zap.NewNop())
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = s.Close() }()
			body := bytes.Repeat([]byte("x"), 1024)
			var wg sync.WaitGroup
			work := make(chan struct{})
			for range producers {
				wg.Go(func() {
					for range work {
						if _, err := s.Append(b.Context(), event.Record{Received: at(1), Event: body}); err != nil {
							b.Error(err)
						}
					}
				})
			}
			for b.Loop() {
				work <- struct{}{}
			}
			close(work)
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

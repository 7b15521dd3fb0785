package spool

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/zap"

	"honeysens.org/dockersensor/shared/event"
)

func appendOf(t testing.TB, s *Spool, origin, text string) {
	t.Helper()
	if _, err := s.Append(t.Context(), event.Record{Origin: origin, Received: at(1), Event: []byte(text)}); err != nil {
		t.Fatal(err)
	}
}

func counts(records []event.Record) map[string]int {
	n := map[string]int{}
	for _, r := range records {
		n[r.Origin]++
	}
	return n
}

// TestWhoFloodsLosesItsOwn fills a spool with one service's events: the older
// ones of the others stay.
func TestWhoFloodsLosesItsOwn(t *testing.T) {
	body := strings.Repeat("x", 1000-recordHead-2)
	s := open(t, Config{Path: path(t), MaxBytes: 20_000})
	for range 3 {
		appendOf(t, s, "11", body)
		appendOf(t, s, "12", body)
	}
	for range 50 {
		appendOf(t, s, "66", body)
	}
	s = reopen(t, s)
	for range 50 {
		appendOf(t, s, "66", body)
	}
	if diff := cmp.Diff(map[string]int{"11": 3, "12": 3, "66": 14}, counts(peek(t, s))); diff != "" {
		t.Errorf("events kept of each service (-want +got):\n%s", diff)
	}
	// Now the two others want more than is left: they share with the first.
	for range 40 {
		appendOf(t, s, "11", body)
		appendOf(t, s, "12", body)
	}
	got := counts(peek(t, s))
	for _, origin := range []string{"11", "12", "66"} {
		if got[origin] < 6 || got[origin] > 7 {
			t.Errorf("service %s has %d of 20 events, want a third", origin, got[origin])
		}
	}
	if stats := s.Stats(); stats.Lost != 186-20 || stats.WaitingBytes > stats.MaxBytes {
		t.Errorf("stats %+v", stats)
	}
}

// TestSharesAreWhatIsThere compares the books with a count, after all that
// moves events.
func TestSharesAreWhatIsThere(t *testing.T) {
	s := open(t, Config{Path: path(t), MaxBytes: 5000, MaxQuarantine: 1000})
	for i := range 60 {
		appendOf(t, s, fmt.Sprint(i%4), strings.Repeat("y", 50+i))
		records := peek(t, s)
		oldest := records[0].ID
		var err error
		switch i % 5 {
		case 0:
			err = s.Ack(t.Context(), oldest)
		case 1, 2:
			err = s.Quarantine(t.Context(), records[len(records)/2].ID, "no reason")
		case 3:
			err = s.Quarantine(t.Context(), oldest, "no reason")
		case 4:
			_, err = s.RetryQuarantine(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	books := s.snapshot()
	s = reopen(t, s)
	counted := s.snapshot()
	for _, st := range []*state{&books, &counted} {
		for _, shelf := range []*shelf{&st.waiting, &st.quarantined} {
			for origin, own := range shelf.shares {
				own.from = 0
				shelf.shares[origin] = own
			}
		}
	}
	if diff := cmp.Diff(counted, books, cmp.AllowUnexported(state{}, shelf{}, share{}, saved{}), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("(-counted +books):\n%s", diff)
	}
}

func fileSize(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// grown makes a spool whose file is large and holds little.
func grown(t *testing.T, file string) *Spool {
	t.Helper()
	s := open(t, Config{Path: file, MaxBytes: 64 << 20})
	appendText(t, s, 1, "the oldest")
	for range 3 {
		var ids []uint64
		for range 40 {
			ids = append(ids, appendText(t, s, 2, strings.Repeat("x", 500_000)))
		}
		if err := s.Ack(t.Context(), ids...); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Quarantine(t.Context(), appendText(t, s, 3, "refused"), "no reason"); err != nil {
		t.Fatal(err)
	}
	appendText(t, s, 4, "the newest")
	return s
}

// TestFileIsBoundedAndShrinks shows that free pages are used again, and given
// back by the next start.
func TestFileIsBoundedAndShrinks(t *testing.T) {
	s := grown(t, path(t))
	if size := fileSize(t, s.cfg.Path); size < minShrink || size > 45<<20 {
		t.Fatalf("file of %d bytes after three times 20 MB", size)
	}
	last := peek(t, s)[1].ID
	if err := os.WriteFile(s.cfg.Path+shrinkSuffix, []byte("left over"), 0o600); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, s)
	if size := fileSize(t, s.cfg.Path); size > 1<<20 {
		t.Errorf("file of %d bytes", size)
	}
	wantTexts(t, s, "the oldest", "the newest")
	if got := s.Stats(); got.Quarantined != 1 || got.Waiting != 2 {
		t.Errorf("stats %+v", got)
	}
	if id := appendText(t, s, 5, "newer"); id <= last {
		t.Errorf("id %d after %d", id, last)
	}
	if _, err := os.Stat(s.cfg.Path + shrinkSuffix); err == nil {
		t.Error("the copy is left over")
	}
}

// TestNoRoomToShrink keeps the file as it is.
func TestNoRoomToShrink(t *testing.T) {
	file := path(t)
	s := grown(t, file)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// A directory in the place of the copy is like a disk that refuses it.
	if err := os.MkdirAll(filepath.Join(file+shrinkSuffix, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	before := fileSize(t, file)
	s = open(t, s.cfg)
	wantTexts(t, s, "the oldest", "the newest")
	if size := fileSize(t, file); size != before {
		t.Errorf("file of %d bytes, before %d", size, before)
	}
	appendText(t, s, 5, "and more")
}

// TestLockOfAReplacedFile opens a file that is replaced while the opener waits
// for its lock.
func TestLockOfAReplacedFile(t *testing.T) {
	first := open(t, Config{Path: path(t)})
	file := first.cfg.Path
	done := make(chan error)
	go func() {
		second, err := Open(Config{Path: file, LockTimeout: time.Minute}, zap.NewNop())
		if err == nil {
			err = second.Close()
		}
		done <- err
	}()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for descriptors(t, file) < 2 {
		<-tick.C
	}
	if err := os.Rename(file, file+".old"); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, errLocked) {
		t.Errorf("error %v, want %v", err, errLocked)
	}
}

// descriptors counts how often this process has a file open.
func descriptors(t *testing.T, file string) int {
	t.Helper()
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && target == file {
			n++
		}
	}
	return n
}

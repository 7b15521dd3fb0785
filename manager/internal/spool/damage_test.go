package spool

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"go.uber.org/zap/zaptest"
	"golang.org/x/sys/unix"

	"honeysens.org/dockersensor/shared/event"
)

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

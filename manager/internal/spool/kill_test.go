package spool

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"honeysens.org/dockersensor/shared/event"
	"honeysens.org/dockersensor/shared/nettest"
)

// openerEnv makes the test binary open the spool that it names, which shrinks
// it, and drop what is more than a few records.
const openerEnv = "SPOOL_TEST_OPENER"

func openAndDrop(path string) int {
	s, err := Open(Config{Path: path, MaxBytes: 500}, zap.NewNop())
	if err != nil {
		fmt.Println("error", err)
		return 1
	}
	for n := range 5 {
		if _, err := s.Append(context.Background(), event.Record{Origin: "9", Received: at(9), Event: fmt.Appendf(nil, "%0100d", n)}); err != nil {
			fmt.Println("error", err)
			return 1
		}
	}
	if err := s.Close(); err != nil {
		fmt.Println("error", err)
		return 1
	}
	return 0
}

// TestNetnsKilledWhileItShrinks kills, for real, who writes a large spool anew
// and drops records from a full one, before its n-th system call of a kind. What
// is left is whole: nothing is missing that was not counted as lost.
func TestNetnsKilledWhileItShrinks(t *testing.T) {
	nettest.Need(t, "strace")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	large := grown(t, path(t))
	want := texts(peek(t, large))
	if err := large.Close(); err != nil {
		t.Fatal(err)
	}
	kills, dir := 0, t.TempDir()
	for call, steps := range map[string]int{"renameat,rename,renameat2": 1, "unlinkat": 1, "fsync": 2, "ftruncate": 2, "pwrite64": 14, "fdatasync": 14} {
		for n := 1; n <= steps; n++ {
			file := filepath.Join(dir, "spool.db")
			copyFile(t, large.cfg.Path, file)
			cmd := exec.CommandContext(t.Context(), "strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace="+call,
				"-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", call, n), exe)
			cmd.Env = append(os.Environ(), openerEnv+"="+file)
			out, err := cmd.CombinedOutput()
			// The tracer ends as the traced did.
			killed := err != nil && cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
			if killed {
				kills++
			} else if err != nil {
				t.Fatalf("%s %d: %v: %s", call, n, err, out)
			}
			wantWhole(t, fmt.Sprintf("%s %d", call, n), file, want)
		}
	}
	t.Logf("%d kills", kills)
	if kills < 20 {
		t.Errorf("%d kills only", kills)
	}
}

// wantWhole wants the newest events of all that there were, and the count of the
// others. The new ones come from another origin, in order.
func wantWhole(t *testing.T, when, file string, before []string) {
	t.Helper()
	s := open(t, Config{Path: file})
	defer func() { _ = s.Close() }()
	got, lost := texts(peek(t, s)), int(s.Stats().Lost)
	all := append([]string{}, before...)
	for n := 0; len(all) < len(got)+lost; n++ {
		all = append(all, fmt.Sprintf("%0100d", n))
	}
	left := map[string]bool{}
	for _, text := range all {
		left[text] = true
	}
	for _, text := range got {
		if !left[text] {
			t.Errorf("%s: %.20q is there, and was never kept, or is there twice", when, text)
		}
		delete(left, text)
	}
	if len(left) != lost {
		t.Errorf("%s: %d events are gone, %d are counted", when, len(left), lost)
	}
	if stats := s.Stats(); stats.Quarantined != 1 {
		t.Errorf("%s: stats %+v", when, stats)
	}
	if _, err := os.Stat(file + damagedSuffix); err == nil {
		t.Errorf("%s: the spool was damaged", when)
	}
	if lost == 0 && cmp.Diff(before, got[:len(before)]) != "" {
		t.Errorf("%s: events %q", when, got)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(out, in)
	if err == nil {
		err = out.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"honeysens.org/dockersensor/shared/nettest"
	"honeysens.org/dockersensor/shared/stracetest"
)

// TestNetnsIdleManagerSleeps watches the system calls of a manager that has
// nothing to do. Nothing wakes it more often than once a second, and a poll
// starts no process.
func TestNetnsIdleManagerSleeps(t *testing.T) {
	const watched = 10 * time.Second
	nettest.Need(t, "strace")
	r := newRig(t)
	trace := stracetest.Trace(filepath.Join(r.dir, "trace"))
	// The tracer is the grandchild, so that signals reach the manager.
	r.tracer = []string{"strace", "-D", "-f", "-qq", "-ttt", "-o", string(trace), "-e", "trace=!sched_yield"}
	r.start()
	// A poll ends with this: until then it is not idle.
	r.until("what the server wants is kept", func() error {
		_, err := os.Stat(filepath.Join(r.dir, "state", "services.json"))
		return err
	})
	began := time.Now()
	pause(t.Context(), watched)
	ended := time.Now()
	woken := trace.Timers(t, began, ended)
	t.Logf("in %s of idleness: woken %d times by timers", watched, woken)
	// Go's runtime looks at its processors once a second, the sensor at helper,
	// engine and services. These do not fire together; another timer of half a
	// second would be over this.
	if woken == 0 || woken > int(watched/time.Second)*4 {
		t.Errorf("woken %d times in %s:\n%.5000s", woken, watched, trace.Between(t, began, ended))
	}
	if _, err := r.cli("poll"); err != nil {
		t.Fatal(err)
	}
	r.until("a poll", func() error {
		if last := r.status().Server.LastPoll; last.Before(ended) {
			return fmt.Errorf("last poll %s", last)
		}
		return nil
	})
	r.manager.end(unix.SIGTERM)
	text := trace.Text(t)
	// The first execve is the manager's own beginning.
	if n := strings.Count(text, "execve(") + strings.Count(text, "execveat("); n > 1 || strings.Contains(text, "fork(") {
		t.Errorf("processes were started, %d by execve", n-1)
	}
}

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"honeysens.org/dockersensor/shared/nettest"
)

// traced is a line of a trace: thread, time, call.
var traced = regexp.MustCompile(`^(\d+) +(\d+\.\d+) (.*)$`)

// TestNetnsIdleManagerSleeps watches the system calls of a manager that has
// nothing to do. Nothing wakes it more often than once a second, and a poll
// starts no process.
func TestNetnsIdleManagerSleeps(t *testing.T) {
	const watched = 10 * time.Second
	nettest.Need(t, "strace")
	r := newRig(t)
	trace := filepath.Join(r.dir, "trace")
	// The tracer is the grandchild, so that signals reach the manager.
	r.tracer = []string{"strace", "-D", "-f", "-qq", "-ttt", "-o", trace, "-e", "trace=!sched_yield"}
	r.start()
	began := time.Now()
	pause(t.Context(), watched)
	ended := time.Now()
	bursts := burstsOf(t, trace, began, ended)
	t.Logf("in %s of idleness: %d bursts of calls", watched, bursts)
	// Timers of a second and more need not fire together: one of half a second
	// alone would be over this.
	if bursts > int(watched/time.Second)*3/2 {
		t.Errorf("woken %d times in %s:\n%.5000s", bursts, watched, between(t, trace, began, ended))
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
	text, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	// The first execve is the manager's own beginning.
	if n := strings.Count(string(text), "execve(") + strings.Count(string(text), "execveat("); n > 1 || strings.Contains(string(text), "fork(") {
		t.Errorf("processes were started, %d by execve", n-1)
	}
}

// between returns the calls of a time.
func between(t *testing.T, file string, from, to time.Time) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var calls strings.Builder
	for line := range strings.Lines(string(text)) {
		if at, ok := timeOf(line); ok && at.After(from) && at.Before(to) {
			calls.WriteString(line)
		}
	}
	return calls.String()
}

func timeOf(line string) (time.Time, bool) {
	match := traced.FindStringSubmatch(strings.TrimSpace(line))
	if match == nil {
		return time.Time{}, false
	}
	seconds, err := strconv.ParseFloat(match[2], 64)
	return time.UnixMicro(int64(seconds * 1e6)), err == nil
}

// burstsOf counts: calls with less than a tenth of a second between
// them are one.
func burstsOf(t *testing.T, file string, from, to time.Time) int {
	t.Helper()
	var times []time.Time
	for line := range strings.Lines(between(t, file, from, to)) {
		if at, ok := timeOf(line); ok {
			times = append(times, at)
		}
	}
	slices.SortFunc(times, time.Time.Compare)
	bursts, last := 0, time.Time{}
	for _, at := range times {
		if at.Sub(last) > 100*time.Millisecond {
			bursts++
		}
		last = at
	}
	return bursts
}

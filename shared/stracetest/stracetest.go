// Package stracetest reads what strace has written of a program, to tell how
// often it is woken. It is used by tests only.
package stracetest

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Trace is the file of `strace -f -ttt -o FILE`.
type Trace string

// traced is a line of it: thread, time, call.
var traced = regexp.MustCompile(`^(\d+) +(\d+\.\d+) (.*)$`)

// Text returns all of it.
func (f Trace) Text(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile(string(f))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Between returns the lines of a time.
func (f Trace) Between(t testing.TB, from, to time.Time) string {
	t.Helper()
	var calls strings.Builder
	for line := range strings.Lines(f.Text(t)) {
		if at, ok := timeOf(line); ok && at.After(from) && at.Before(to) {
			calls.WriteString(line)
		}
	}
	return calls.String()
}

// expired is a wait of Go's scheduler that ended because the time of the next
// timer had come: it had nothing else to do.
var expired = regexp.MustCompile(`epoll_pwait.*, [1-9][0-9]*, NULL, [0-9]+\) += 0$`)

// Timers counts how often a timer woke the program in a time.
func (f Trace) Timers(t testing.TB, from, to time.Time) int {
	t.Helper()
	count := 0
	for line := range strings.Lines(f.Between(t, from, to)) {
		if expired.MatchString(strings.TrimSpace(line)) {
			count++
		}
	}
	return count
}

func timeOf(line string) (time.Time, bool) {
	match := traced.FindStringSubmatch(strings.TrimSpace(line))
	if match == nil {
		return time.Time{}, false
	}
	seconds, err := strconv.ParseFloat(match[2], 64)
	return time.UnixMicro(int64(seconds * 1e6)), err == nil
}

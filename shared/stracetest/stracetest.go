// Package stracetest reads what strace has written of a program, to tell how
// often it is woken. It is used by tests only.
package stracetest

import (
	"os"
	"regexp"
	"slices"
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

// Bursts counts how often the program did something in a time: calls with less
// than a tenth of a second between them are one burst.
func (f Trace) Bursts(t testing.TB, from, to time.Time) int {
	t.Helper()
	var times []time.Time
	for line := range strings.Lines(f.Between(t, from, to)) {
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

func timeOf(line string) (time.Time, bool) {
	match := traced.FindStringSubmatch(strings.TrimSpace(line))
	if match == nil {
		return time.Time{}, false
	}
	seconds, err := strconv.ParseFloat(match[2], 64)
	return time.UnixMicro(int64(seconds * 1e6)), err == nil
}

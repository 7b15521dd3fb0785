package main

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"honeysens.org/dockersensor/packaging/lab/admin"
)

// arrival reports an event and returns how long it took to be at the server.
func (r *rig) arrival(summary string, since int64) (time.Duration, int64) {
	r.t.Helper()
	began := time.Now()
	if err := r.report(r.t.Context(), summary); err != nil {
		r.t.Fatal(err)
	}
	e, err := r.server.WaitEvent(r.t.Context(), since, func(e admin.Event) bool { return e.Summary == summary })
	if err != nil {
		r.t.Fatal(err)
	}
	return time.Since(began), e.ID
}

func median(times []time.Duration) time.Duration {
	slices.Sort(times)
	return times[len(times)/2]
}

// latencies reports events, each so long after the one before.
func (r *rig) latencies(n int, gap time.Duration) []time.Duration {
	r.t.Helper()
	var times []time.Duration
	since := int64(0)
	tick := time.NewTicker(gap)
	defer tick.Stop()
	for i := range n {
		<-tick.C
		var took time.Duration
		took, since = r.arrival(fmt.Sprintf("%s %d", gap, i), since)
		times = append(times, took)
	}
	return times
}

// TestLatency wants the server to have an event soon, a lone one and one of a
// steady flow of five a second. How soon is measured by BenchmarkLatency.
func TestLatency(t *testing.T) {
	r := newRig(t)
	r.start()
	for _, gap := range []time.Duration{600 * time.Millisecond, 200 * time.Millisecond} {
		got := median(r.latencies(5, gap))
		t.Logf("an event every %s is at the server after %s (median)", gap, got)
		if got > 2*time.Second {
			t.Errorf("an event every %s is at the server after %s", gap, got)
		}
	}
}

// BenchmarkLatency measures from a honeypot's connection to the event at the
// server, and as a ratio to a request to the server that does nothing.
func BenchmarkLatency(b *testing.B) {
	for _, gap := range []time.Duration{time.Second, 200 * time.Millisecond} {
		b.Run(gap.String(), func(b *testing.B) {
			r := newRig(b)
			r.start()
			var times []time.Duration
			for b.Loop() {
				times = append(times, r.latencies(2, gap)...)
			}
			began := time.Now()
			if _, err := r.server.Events(b.Context(), 1<<60, 0); err != nil {
				b.Fatal(err)
			}
			request := time.Since(began)
			got := median(times)
			b.ReportMetric(float64(got.Microseconds())/1000, "ms-median")
			b.ReportMetric(float64(got)/float64(request), "requests")
		})
	}
}

// BenchmarkStart measures from the manager's start to its first successful poll,
// and as a ratio to a run of the same program that does nothing.
func BenchmarkStart(b *testing.B) {
	r := newRig(b)
	r.start()
	r.manager.end(unix.SIGTERM)
	var polled, ended, version []time.Duration
	for b.Loop() {
		began := time.Now()
		r.start()
		polled = append(polled, time.Since(began))
		began = time.Now()
		r.manager.end(unix.SIGTERM)
		ended = append(ended, time.Since(began))
		began = time.Now()
		<-launch(b, r.manager.cmd.Path, "version").done
		version = append(version, time.Since(began))
	}
	b.ReportMetric(float64(median(polled).Microseconds())/1000, "ms-to-poll")
	b.ReportMetric(float64(median(ended).Microseconds())/1000, "ms-to-end")
	b.ReportMetric(float64(median(polled))/float64(median(version)), "runs-of-version")
}

// BenchmarkMemory measures the manager's memory: idle after its first poll, and
// after 100,000 events.
func BenchmarkMemory(b *testing.B) {
	const events = 100_000
	r := newRig(b)
	for b.Loop() {
		r.start()
		idle, own := memory(b, r.pid())
		b.ReportMetric(idle, "MB-idle")
		b.ReportMetric(own, "MB-idle-own")
		began := time.Now()
		r.reportAll(names("event", events))
		b.ReportMetric(events/time.Since(began).Seconds(), "events/s")
		r.until("all is sent", func() error {
			if s := r.status().Events; s.Waiting > 0 || s.Sent < events {
				return fmt.Errorf("events %+v", s)
			}
			return nil
		})
		after, own := memory(b, r.pid())
		b.ReportMetric(after, "MB-after")
		b.ReportMetric(own, "MB-after-own")
		r.manager.end(unix.SIGTERM)
	}
}

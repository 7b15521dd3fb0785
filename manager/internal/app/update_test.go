package app

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"honeysens.org/dockersensor/manager/internal/control"
)

// TestTestsAreRepeatedWhileTheirResultIsAskedFor: in a trial a honeypot may come
// up late, and afterwards nobody is to visit it any more.
func TestTestsAreRepeatedWhileTheirResultIsAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var count atomic.Int32
		tests := &tests{wake: make(chan struct{}, 1), visit: func(_ context.Context, tell func(control.TestFinding)) bool {
			visits := count.Add(1)
			tell(control.TestFinding{Verdict: "broken", Part: "helper"})
			tell(control.TestFinding{Service: "9", Verdict: "unproved"})
			if visits > 1 {
				tell(control.TestFinding{Service: "2", Verdict: "works"})
				tell(control.TestFinding{Service: "1", Verdict: "works"})
			}
			return visits > 1
		}}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			tests.run(ctx)
		}()
		for _, want := range [][]string{nil, nil, {"1", "2"}} {
			if got := tests.last(); !slices.Equal(got, want) {
				t.Errorf("after %d visits: %q have passed, want %q", count.Load(), got, want)
			}
			time.Sleep(2 * testAgain)
		}
		before := count.Load()
		time.Sleep(time.Minute)
		if after := count.Load(); after != before {
			t.Errorf("%d visits that nobody asked for", after-before)
		}
		cancel()
		<-done
	})
}

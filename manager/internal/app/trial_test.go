package app

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"honeysens.org/dockersensor/shared/helperapi"
)

// follow runs a watch over a world's setup until the test ends.
func follow(t *testing.T, w *world) (adopted, poked *[]time.Duration) {
	t.Helper()
	start := time.Now()
	adopted, poked = new([]time.Duration), new([]time.Duration)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		watch{setup: w.setup, reason: func() string { return "no answer" },
			adopt: func() { *adopted = append(*adopted, time.Since(start)) },
			poke:  func() { *poked = append(*poked, time.Since(start)) },
		}.run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return adopted, poked
}

func TestWatchEndsAndRepeatsTrials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		adopted, poked := follow(t, w)
		<-time.After(time.Hour)
		synctest.Wait()
		if len(*adopted)+len(*poked) > 0 {
			t.Fatalf("without a change: %v %v", *adopted, *poked)
		}
		w.want("server", "host", bad)
		if changed, err := w.setup.take(time.Now(), w.wants, w.setup.ticket(true)); !changed || err != nil {
			t.Fatal(changed, err)
		}
		<-time.After(trialTime - time.Second)
		synctest.Wait()
		if got, want := len(*poked), int(trialTime/proveEvery); got != want {
			t.Errorf("%d polls asked for, want %d", got, want)
		}
		<-time.After(2 * time.Second)
		synctest.Wait()
		w.expect(w.old(), "refused", 1)
		<-time.After(firstRetry)
		synctest.Wait()
		w.expect(bad, "trial", 1)
		<-time.After(trialTime)
		synctest.Wait()
		want := []time.Duration{time.Hour + trialTime, time.Hour + trialTime + firstRetry, time.Hour + 2*trialTime + firstRetry}
		if diff := cmp.Diff(want, *adopted); diff != "" {
			t.Errorf("settings changed (-want +got):\n%s", diff)
		}
	})
}

func TestWatchPokesWhenATrialBegins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		_, poked := follow(t, w)
		synctest.Wait()
		w.want("server", "host", good)
		if _, err := w.setup.take(time.Now(), w.wants, w.setup.ticket(true)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if len(*poked) != 1 {
			t.Fatalf("%d polls asked for", len(*poked))
		}
		if _, err := w.setup.take(time.Now(), w.wants, w.setup.ticket(true)); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Hour)
		synctest.Wait()
		w.expect(good, "", 0)
		if len(*poked) != 1 {
			t.Errorf("%d polls asked for after all was settled", len(*poked))
		}
	})
}

func TestKeeperIsSettledAfterAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		helper := &fakeHelper{}
		k := keep(t, helper)
		expect := func(when string, want bool) {
			t.Helper()
			synctest.Wait()
			if got := k.settled(); got != want {
				t.Errorf("%s: settled is %v", when, got)
			}
		}
		expect("at the start", false)
		<-time.After(settleTime)
		expect("after a while", true)
		k.configure(subnet("10.10.10.0/24"))
		expect("without a change", true)
		k.configure(subnet("10.20.0.0/24"))
		<-time.After(settleTime)
		expect("not yet in force", false)
		if _, err := k.Apply(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		expect("just in force", false)
		<-time.After(settleTime)
		expect("in force for a while", true)
		k.note(helperapi.Observed{Applied: true, Interface: helperapi.InterfaceObserved{Problem: "no lease"}}, nil)
		expect("without a lease", false)
	})
}

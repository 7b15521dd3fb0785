package images

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestStalledFetchEndsAndSlowOneDoesNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, stop := newStallWatch(t.Context())
		defer stop()
		for n := range int64(10) {
			<-time.After(stallTimeout - time.Second)
			w.moved(n, 100)
		}
		if err := w.ctx.Err(); err != nil {
			t.Fatalf("a slow fetch was ended: %v", err)
		}
		<-time.After(stallTimeout)
		synctest.Wait()
		if err := w.explain(w.ctx.Err()); !errors.Is(err, errStalled) {
			t.Errorf("a stalled fetch: %v", err)
		}
	})
}

func TestLoadMayTakeItsTimeForWhatHasArrived(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, stop := newStallWatch(t.Context())
		w.moved(100, 100)
		<-time.After(10 * stallTimeout)
		synctest.Wait()
		if err := w.ctx.Err(); err != nil {
			t.Errorf("it was ended: %v", err)
		}
		stop()
		if err := w.explain(context.Canceled); !errors.Is(err, context.Canceled) {
			t.Errorf("an end from outside: %v", err)
		}
	})
}

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
		w, stop := newStallWatch(t.Context(), time.Minute)
		defer stop()
		for n := range int64(10) {
			<-time.After(time.Minute - time.Second)
			w.moved((n + 1) * stallBytes)
		}
		if err := w.ctx.Err(); err != nil {
			t.Fatalf("a slow fetch was ended: %v", err)
		}
		for n := range int64(60) {
			<-time.After(time.Second)
			w.moved(10*stallBytes + n)
		}
		synctest.Wait()
		if err := w.explain(w.ctx.Err()); !errors.Is(err, errStalled) {
			t.Errorf("a dripping fetch: %v", err)
		}
	})
}

func TestLoadMayTakeItsTimeForWhatHasArrived(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, stop := newStallWatch(t.Context(), time.Minute)
		w.rest()
		<-time.After(time.Hour)
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

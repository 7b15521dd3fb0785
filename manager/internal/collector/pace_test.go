package collector

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
)

func TestPaceHoldsBackWhoReportsTooMuch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(Config{Rate: 100}, nil, nil, zap.NewNop())
		start := time.Now()
		for range 500 {
			if wait := c.paces.delay("7", 100, time.Now()); wait != 0 {
				t.Fatalf("held back by %s within the burst", wait)
			}
		}
		if c.Held("7") {
			t.Error("held back within the burst")
		}
		for range 1000 {
			time.Sleep(c.paces.delay("7", 100, time.Now()))
		}
		if got := time.Since(start).Round(time.Second); got != 10*time.Second {
			t.Errorf("1,000 more took %s, want 10s", got)
		}
		if c.paces.delay("8", 100, time.Now()) != 0 || !c.Held("7") || c.Held("8") {
			t.Error("the wrong one is held back")
		}
		time.Sleep(heldFor)
		if c.Held("7") || c.paces.delay("7", 100, time.Now()) != 0 {
			t.Error("held back for ever")
		}
		for range 1001 {
			c.paces.refuse("10", 200, time.Now())
		}
		if !c.Held("10") || c.paces.delay("10", 200, time.Now()) > time.Second/100 {
			t.Error("who connects without an end is not held back, or for too long")
		}
		for n := range 2 * maxPaces {
			c.paces.delay(fmt.Sprint(n), 100, time.Now().Add(time.Duration(n)*time.Second))
		}
		if got := len(c.paces.of); got > maxPaces {
			t.Errorf("%d paces are known", got)
		}
		if c.paces.delay("9", 0, time.Now()) != 0 {
			t.Error("a pace without a limit")
		}
	})
}

package collector

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"honeysens.org/dockersensor/shared/zmtp"
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

// TestFloodIsHeldBack has one service report on as many connections as it gets,
// and connect more often than it may: it is held back and named, and another one
// is answered as ever.
func TestFloodIsHeldBack(t *testing.T) {
	const rate = 100
	f := start(t, Config{Rate: rate}, &sink{})
	ctx, stop := context.WithCancel(t.Context())
	var flood sync.WaitGroup
	began := time.Now()
	for n := range 24 {
		flood.Go(func() {
			for ctx.Err() == nil {
				raw, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 7)}}).DialContext(ctx, "tcp", f.addr)
				if err != nil {
					continue
				}
				ends := context.AfterFunc(ctx, func() { _ = raw.Close() })
				reportOn(raw, n < 8)
				ends()
				_ = raw.Close()
			}
		})
	}
	other, _ := open(t, "127.0.0.8", f.addr, zmtp.TypeREQ)
	for tick := time.NewTicker(time.Second / 50); !f.Held("svc7"); <-tick.C {
		if time.Since(began) > limit {
			t.Fatal("nobody is held back")
		}
		ask(t, other, nil, body("quiet"))
	}
	if f.Held("svc8") {
		t.Error("the wrong one is held back")
	}
	stop()
	flood.Wait()
	taken := 0
	for _, e := range f.sink.summaries(t) {
		if e == "svc7 flood" {
			taken++
		}
	}
	if most := int((paceBurst+time.Since(began)).Seconds()*rate) + 24; taken < 10 || taken > most {
		t.Errorf("%d events of the flood were taken in %s, want %d at most", taken, time.Since(began), most)
	}
}

// reportOn reports on a connection, once or for as long as it lasts.
func reportOn(raw net.Conn, again bool) {
	conn, err := zmtp.NewConn(raw, zmtp.Config{Type: zmtp.TypeREQ, Peers: []string{zmtp.TypeREP}, MaxMessage: 64 << 10})
	for once := true; err == nil && (once || again); once = false {
		if err = conn.Send(nil, body("flood")); err == nil {
			_, err = conn.Receive()
		}
	}
}

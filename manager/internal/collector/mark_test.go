package collector

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
)

func TestMarkedSourcesAreNoAttacks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(Config{}, nil, nil, zap.NewNop())
		reported := c.Mark(netip.MustParseAddr("198.18.1.2"))
		for source, want := range map[string]bool{
			"198.18.1.2": true, "::ffff:198.18.1.2": true, "198.18.1.3": false, "198.18.1.20": false, "": false, "198.18.1.2 ": false,
		} {
			if got := c.marks.test(source, "7"); got != want {
				t.Errorf("%q: %v", source, got)
			}
		}
		if by := <-reported; by != "7" {
			t.Errorf("reported by %q", by)
		}
		time.Sleep(MarkFor + time.Second)
		if c.marks.test("198.18.1.2", "7") {
			t.Error("marked for ever")
		}
		c.MarkAll(netip.MustParsePrefix("198.18.0.0/15").Contains, time.Now().Add(time.Minute))
		if !c.marks.test("198.19.0.1", "7") || c.marks.test("198.20.0.1", "7") {
			t.Error("the network of a manager before is not marked, or another one")
		}
		time.Sleep(time.Minute)
		if c.marks.test("198.19.0.1", "7") {
			t.Error("the network is marked for ever")
		}
		for n := range maxMarks + 10 {
			c.Mark(netip.AddrFrom4([4]byte{198, 18, byte(n >> 8), byte(n)}))
		}
		if got := len(c.marks.of); got > maxMarks {
			t.Errorf("%d marks", got)
		}
	})
}

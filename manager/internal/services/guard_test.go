package services

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestOffenderIsEndedAndNamed(t *testing.T) {
	cases := map[string]struct {
		usage Usage
		word  string
	}{
		"disk":   {Usage{Disk: 257 << 20}, "it wrote 257 MB"},
		"fork":   {Usage{PIDs: 256}, "all of its 256 processes"},
		"memory": {Usage{Memory: 500 << 20}, "all of its 512 MB of memory"},
		"log":    {Usage{LogLines: 1001}, "more than 200 lines a second"},
		"bytes":  {Usage{LogBytes: maxLogBytes}, "more than 200 lines a second"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				s, _ := begin(t, w, Config{})
				s.SetWanted([]Wanted{ssh("1"), catchAll("2")})
				after(2 * time.Minute)
				wantState(t, s, "1", Running, "")
				w.change(func() { w.usage = map[string]Usage{"cowrie:1": c.usage} })
				after(guardEvery)
				wantState(t, s, "1", Scheduled, c.word)
				after(30 * time.Second)
				wantState(t, s, "1", Failed, c.word)
				wantState(t, s, "2", Running, "")
				w.change(func() { w.usage = nil })
				after(2 * time.Minute)
				wantState(t, s, "1", Running, "")
			})
		})
	}
}

// TestDiskIsLookedAtCalmly: nothing wakes a sensor more often than once a second,
// but a disk that shrinks.
func TestDiskIsLookedAtCalmly(t *testing.T) {
	s := &Services{cfg: Config{DataDir: "/", Limits: Limits{Disk: 256 << 20}}}
	for _, test := range []struct {
		honeypots int
		taken     int64
		want      time.Duration
	}{{0, 1 << 30, guardEvery}, {1, 0, diskEvery}, {1, 16 << 20, diskEvery}, {1, -1 << 30, diskEvery}, {3, 17 << 20, hurriedEvery}} {
		if got := s.untilNextLook(test.honeypots, test.taken); got != test.want {
			t.Errorf("%d honeypots, %d bytes: %s, want %s", test.honeypots, test.taken, got, test.want)
		}
	}
}

// TestCrashHidesNoWriting: what a honeypot writes is counted over all its starts. One
// that crashes before its rate is known is ended for it, one that only crashes is not.
func TestCrashHidesNoWriting(t *testing.T) {
	for each, ended := range map[int64]bool{1 << 20: false, 4 << 30: true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			s, _ := begin(t, w, Config{})
			s.SetWanted([]Wanted{ssh("1")})
			// Each start is as long as it takes to be looked at once.
			for n := range int64(4) {
				w.change(func() { w.usage = map[string]Usage{"cowrie:1": {Written: 1<<20 + n*each}} })
				after(crashPause<<n + guardEvery)
				var runs bool
				w.change(func() { c := w.containers[w.names["s1"]]; runs = c != nil && c.Running })
				if runs {
					w.end("s1", 1)
					s.Wake()
				}
			}
			if got := slices.Contains(w.take(), "remove s1"); got != ended {
				t.Errorf("%d MB with each start: ended for it: %v", each>>20, got)
			}
		})
	}
}

package update

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// strikes are what can happen to a host. Each leaves the conductor dead, but for
// the kill of a sensor alone.
func strikes() map[string]func(*world) {
	return map[string]func(*world){
		"kill -9 of the old": func(w *world) { w.sensors[Old].end(w, true) },
		"kill -9 of the new": func(w *world) { w.sensors[New].end(w, true) },
		"kill -9 of both": func(w *world) {
			w.sensors[Old].end(w, true)
			w.sensors[New].end(w, true)
		},
		"kill -9 of the conductor": func(w *world) { panic(killed{}) },
		"restart of the engine": func(w *world) {
			for _, s := range w.sensors {
				// The engine stops what it runs, and starts it again.
				if s.running {
					s.end(w, false)
					s.network, s.back = false, w.now.Add(5*time.Second)
				}
			}
			w.engine.away = w.now.Add(4 * time.Second)
			panic(killed{})
		},
		"power cut": func(w *world) {
			for _, s := range w.sensors {
				if s.running {
					s.end(w, false)
					s.back = w.now.Add(6 * time.Second)
				}
				s.network = false
			}
			w.now = w.now.Add(time.Hour)
			w.engine.away = w.now.Add(5 * time.Second)
			panic(killed{})
		},
	}
}

// scenarios are ways that an update can go.
func scenarios() []struct {
	name             string
	beside, handover bool
	quirk            func(*fakeSensor)
	want             Phase
} {
	good := func(*fakeSensor) {}
	return []struct {
		name             string
		beside, handover bool
		quirk            func(*fakeSensor)
		want             Phase
	}{
		{"beside the old one", true, true, good, Committed},
		{"in place of the old one", false, true, good, Committed},
		{"a sensor that knows nothing of hand-overs", false, false, good, Committed},
		{"never ready", true, true, func(s *fakeSensor) { s.mute = true }, RolledBack},
		{"proves nothing", true, true, func(s *fakeSensor) { s.useless = true }, RolledBack},
		{"proves nothing, in place", false, true, func(s *fakeSensor) { s.useless = true }, RolledBack},
		{"proves nothing and does not let go", true, true, func(s *fakeSensor) { s.useless, s.stubborn = true, true }, RolledBack},
		{"ends again and again", true, true, func(s *fakeSensor) { s.dies = true }, RolledBack},
		{"knows nothing and ends again and again", false, false, func(s *fakeSensor) { s.dies = true }, RolledBack},
	}
}

func (w *world) conductTo(quirk func(*fakeSensor)) {
	quirk(w.sensors[New])
	w.run()
}

func TestUpdateTakesItsCourse(t *testing.T) {
	for _, s := range scenarios() {
		t.Run(s.name, func(t *testing.T) {
			w := newWorld(t, s.beside, s.handover)
			w.conductTo(s.quirk)
			w.expect(s.want)
			if s.want == RolledBack && !w.removed[imageNew] {
				t.Error("the image of the failed revision stays")
			}
		})
	}
}

// TestUpdateSurvives is the table of every step of the conductor and everything
// that can strike there: afterwards exactly one sensor serves, files are whole,
// and the journal says which one it is.
func TestUpdateSurvives(t *testing.T) {
	for _, s := range scenarios() {
		plain := newWorld(t, s.beside, s.handover)
		plain.conductTo(s.quirk)
		for name, strike := range strikes() {
			for _, at := range plain.distinct() {
				t.Run(fmt.Sprintf("%s/%s/%d %s", s.name, name, at, plain.seen[at-1]), func(t *testing.T) {
					t.Parallel()
					w := newWorld(t, s.beside, s.handover)
					w.killAt, w.strike = at, strike
					w.conductTo(s.quirk)
					r, err := w.journal.Read()
					if err != nil {
						t.Fatal(err)
					}
					// Bad firmware never stays; good one may be given up.
					if s.want == RolledBack && r.Phase != RolledBack {
						t.Errorf("bad firmware was committed")
					}
					w.expect(r.Phase)
				})
			}
		}
	}
}

// distinct returns the numbers of the steps without those that are repeated while
// it waits.
func (w *world) distinct() []int {
	var steps []int
	times := map[string]int{}
	for n, name := range w.seen {
		if times[name]++; times[name] <= 2 {
			steps = append(steps, n+1)
		}
	}
	return steps
}

// TestUpdateSurvivesATimeInTheMiddle strikes between the steps, while all wait.
func TestUpdateSurvivesATimeInTheMiddle(t *testing.T) {
	for name, strike := range strikes() {
		for ms := 200; ms <= 6000; ms += 400 {
			t.Run(fmt.Sprintf("%s after %d ms", name, ms), func(t *testing.T) {
				w := newWorld(t, true, true)
				due := w.now.Add(time.Duration(ms) * time.Millisecond)
				w.strike = strike
				w.sensors[New].since = w.now
				w.strikeAt(due)
				w.run()
				r, err := w.journal.Read()
				if err != nil {
					t.Fatal(err)
				}
				w.expect(r.Phase)
			})
		}
	}
}

func TestOldSensorThatDoesNotLetGoIsKilled(t *testing.T) {
	w := newWorld(t, true, true)
	w.sensors[Old].stubborn = true
	r, err := w.journal.Read()
	if err != nil {
		t.Fatal(err)
	}
	r.Limits.Trial = 2 * letGo
	if err := w.journal.Write(r); err != nil {
		t.Fatal(err)
	}
	w.run()
	w.expect(Committed)
	if !slices.Contains(w.seen, "kill old") || !slices.Contains(w.seen, "clean up network") {
		t.Errorf("steps: %s", strings.Join(w.seen, ", "))
	}
}

// TestImageThatSomebodyRemoved: that is not the firmware's fault.
func TestImageThatSomebodyRemoved(t *testing.T) {
	for _, beside := range []bool{true, false} {
		w := newWorld(t, beside, true)
		w.removed[imageNew] = true
		w.run()
		w.expect(RolledBack)
		if r, err := w.journal.Read(); err != nil || !r.Lost {
			t.Errorf("beside: %v: the journal says %+v, %v", beside, r, err)
		}
	}
}

func TestOldContainerThatSomebodyRemovedComesBack(t *testing.T) {
	w := newWorld(t, true, true)
	w.sensors[New].useless = true
	w.killAt, w.strike = 5, func(w *world) {
		if err := w.engine.RemoveProject(t.Context(), "hs", w.deploy); err != nil {
			t.Fatal(err)
		}
	}
	w.run()
	w.expect(RolledBack)
}

package app

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/zap"

	"honeysens.org/dockersensor/manager/internal/config"
)

// tick is the time between two polls of a world.
const tick = 5 * time.Second

// world is a sensor with its disk, a server, and what lies between them. Its
// clock is moved by hand.
type world struct {
	t     *testing.T
	dir   string
	setup *setup
	now   time.Time
	// works tells whether the server is reached in this way.
	works func(config.Way) bool
	// inForce tells whether the host's network is as wanted.
	inForce bool
	// wants is what the server's answers say.
	wants config.Changes
	// tried is when trials began, since the start.
	tried []time.Duration
	start time.Time
	// killAt is the step of the disk before which the sensor is killed, when
	// it is above zero; steps counts them.
	killAt, steps int
}

// killed is what ends a sensor in the middle.
type killed struct{}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), now: time.Unix(1700000000, 0), inForce: true}
	w.start = w.now
	w.works = func(config.Way) bool { return true }
	data, err := os.ReadFile(filepath.Join("..", "config", "testdata", "static.tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"conf", "state"} {
		if err := os.Mkdir(filepath.Join(w.dir, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(w.dir, "conf", "s1.tar.gz"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	w.boot()
	return w
}

// boot starts the sensor, as after a power cut.
func (w *world) boot() {
	w.t.Helper()
	s, err := openSetup(filepath.Join(w.dir, "conf"), zap.NewNop())
	if err != nil {
		w.t.Fatal(err)
	}
	w.setup = s
	s.step = w.step
	s.resume(w.journal(), w.now)
}

func (w *world) journal() journal { return journal(filepath.Join(w.dir, "state", "settings.journal")) }

func (w *world) step(string) {
	w.steps++
	if w.killAt > 0 && w.steps >= w.killAt {
		panic(killed{})
	}
}

// survive does something, and boots again when the sensor is killed by it.
func (w *world) survive(do func()) {
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(killed); !ok {
				panic(r)
			}
			w.killAt = 0
			w.check("killed")
			w.boot()
		}
	}()
	do()
}

// check asserts what must be true at every instant.
func (w *world) check(when string) {
	w.t.Helper()
	archive, _, err := config.Open(filepath.Join(w.dir, "conf"))
	if err != nil {
		w.t.Fatalf("%s: %v", when, err)
	}
	settings, err := archive.Settings()
	if err != nil {
		w.t.Fatalf("%s: %v", when, err)
	}
	r, err := w.journal().read()
	if err != nil {
		w.t.Fatalf("%s: %v", when, err)
	}
	if !w.works(settings.Way()) && (r == nil || !w.works(r.before.way())) {
		w.t.Fatalf("%s: the archive's settings do not work, and no others are known", when)
	}
}

// pass lets time pass, with polls.
func (w *world) pass(d time.Duration) {
	w.t.Helper()
	for end := w.now.Add(d); w.now.Before(end); {
		gap := w.gap(end)
		w.now = w.now.Add(gap)
		w.survive(func() { w.poll() })
		w.survive(func() {
			if w.setup.elapse(w.now, "no answer") && w.setup.trial() {
				w.tried = append(w.tried, w.now.Sub(w.start))
			}
		})
	}
}

// gap is the time to the next poll: long waits have fewer.
func (w *world) gap(end time.Time) time.Duration {
	left := end.Sub(w.now)
	switch {
	case w.setup.trial():
		return tick
	case left <= time.Hour:
		return max(min(time.Minute, left), tick)
	}
	gap := time.Hour
	if due := w.setup.due(); !due.IsZero() {
		gap = min(gap, due.Sub(w.now))
	}
	return max(min(gap, left), tick)
}

// poll asks the server once.
func (w *world) poll() {
	t := w.setup.ticket(w.inForce)
	settings := w.setup.settings()
	if !w.works(settings.Way()) {
		return
	}
	before := w.setup.trial()
	if _, err := w.setup.take(w.now, w.wants, t); err != nil {
		w.t.Fatal(err)
	}
	if !before && w.setup.trial() {
		w.tried = append(w.tried, w.now.Sub(w.start))
	}
}

// want sets what the server's answers say: section.key, text.
func (w *world) want(pairs ...string) {
	w.wants.Values = nil
	for i := 0; i < len(pairs); i += 3 {
		w.wants.Values = append(w.wants.Values, config.Value{Section: pairs[i], Key: pairs[i+1], Text: &pairs[i+2]})
	}
}

// host makes the server reachable at certain addresses only.
func (w *world) host(hosts ...string) {
	w.works = func(way config.Way) bool {
		for _, host := range hosts {
			if way.Host == host {
				return true
			}
		}
		return false
	}
}

// expect compares with the state of the setup, and with what is on the disk.
func (w *world) expect(host, phase string, attempts int) {
	w.t.Helper()
	got := w.setup.state()
	if now := w.setup.settings().Server.Host; now != host || got.State != phase || got.Attempts != attempts {
		w.t.Errorf("after %s: server %s, %q after %d attempts (%s); want %s, %q after %d",
			w.now.Sub(w.start), now, got.State, got.Attempts, got.Reason, host, phase, attempts)
	}
	archive, _, err := config.Open(filepath.Join(w.dir, "conf"))
	if err != nil {
		w.t.Fatal(err)
	}
	w.setup.mu.Lock()
	defer w.setup.mu.Unlock()
	if !archive.Same(w.setup.current.archive) {
		w.t.Errorf("after %s: the archive on the disk is another one", w.now.Sub(w.start))
	}
	r, err := w.journal().read()
	if err != nil {
		w.t.Fatal(err)
	}
	if onDisk := fmt.Sprint(r != nil); onDisk != fmt.Sprint(phase != "") {
		w.t.Errorf("after %s: a journal on the disk: %s", w.now.Sub(w.start), onDisk)
	}
}

// old is the server's address in the archive that a world begins with.
func (w *world) old() string {
	archive, _, err := config.Open(filepath.Join("..", "config", "testdata", "static.tar.gz"))
	if err != nil {
		w.t.Fatal(err)
	}
	settings, err := archive.Settings()
	if err != nil {
		w.t.Fatal(err)
	}
	return settings.Server.Host
}

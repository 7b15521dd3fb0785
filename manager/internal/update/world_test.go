package update

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
)

const (
	composeText = `# ours
services:
  sensor:
    image: honeysens/sensorx86:a # the revision
    network_mode: host
    restart: unless-stopped
  other:
    image: "busybox:1"
`
	envText  = "A=1\nCOMPOSE_PROJECT_NAME=hs\nB=2\n"
	oldID    = "0000000000000000000000000000000000000000000000000000000000000001"
	newID    = "0000000000000000000000000000000000000000000000000000000000000002"
	imageOld = "sha256:" + oldID
	imageNew = "sha256:" + newID
)

// world is a host with its engine, two sensors, a conductor and a disk. Its clock
// moves when the conductor sleeps; a kill strikes before one of its steps.
type world struct {
	t       *testing.T
	journal *Journal
	deploy  Deployment
	now     time.Time
	engine  *fakeEngine
	sensors map[Side]*fakeSensor
	// holder has the lock of the spool, stale the networks that killed sensors
	// left in the kernel.
	holder *fakeSensor
	// strike is what happens before the step killAt; steps counts them.
	strike func(*world)
	killAt int
	// known is the journal as the sensors see it.
	known   *Record
	knownAt time.Time
	due     time.Time
	steps   int
	seen    []string
	removed map[string]bool
	runs    int
	// flushed is set when the disks have what the engine wrote.
	flushed bool
}

// killed ends the conductor in the middle.
type killed struct{}

// fakeSensor is a manager with its helper, and what the engine knows of its
// container.
type fakeSensor struct {
	side    Side
	project string
	id      string
	exists  bool
	running bool
	// back is when the engine starts it again, zero when it does not.
	back     time.Time
	restarts int
	// network is what its helper has in the kernel, serving that its manager has
	// spool and network.
	network, serving bool
	since            time.Time
	told             Report
	// quirks of bad firmware.
	mute, useless, stubborn, dies bool
}

// fakeEngine may be away.
type fakeEngine struct {
	w    *world
	away time.Time
}

func newWorld(t *testing.T, beside, handover bool) *world {
	t.Helper()
	dir := memory(t)
	w := &world{t: t, now: time.Unix(1700000000, 0), removed: map[string]bool{}}
	w.journal = NewJournal(filepath.Join(dir, "state", "update"))
	w.engine = &fakeEngine{w: w}
	w.deploy = Deployment{Dir: dir, Files: []string{filepath.Join(dir, "docker-compose.yml")}, Service: "sensor", Socket: "/var/run/docker.sock", HostNetwork: true}
	w.sensors = map[Side]*fakeSensor{
		Old: {side: Old, project: "hs", id: oldID, exists: true, running: true, network: true, serving: true},
		New: {side: New, project: "hs-222222", id: newID},
	}
	w.holder = w.sensors[Old]
	for name, text := range map[string]string{"docker-compose.yml": composeText, ".env": envText} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	r := &Record{
		Phase: Loaded, Offer: Offer{Revision: "b", URI: "api/platforms/firmware/1/raw"}, Began: w.now, Digest: oldID,
		Firmware: Firmware{Handover: handover}, Beside: beside, Deployment: w.deploy,
		From: Sensor{Project: "hs", Revision: "a", Image: imageOld, Container: oldID}, To: Sensor{Project: "hs-222222", Revision: "b", Image: imageNew},
		Worked: Worked{Services: []string{"1"}, Network: true, Events: true}, Limits: Limits{Prepare: 16 * time.Second, Trial: 16 * time.Second},
	}
	if err := w.journal.Write(r); err != nil {
		t.Fatal(err)
	}
	return w
}

// memory is a directory on a disk that forgets: the tables write a file and wait
// for the disk some ten thousand times.
func memory(t testing.TB) string {
	t.Helper()
	const disk = "/dev/shm"
	if _, err := os.Stat(disk); err != nil {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp(disk, "update") //nolint:usetesting // t.TempDir makes it on the other disk
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// run lets the update take its course, with a new conductor after each kill.
func (w *world) run() {
	w.t.Helper()
	for w.runs = 1; w.runs < 20; w.runs++ {
		if w.conduct() {
			w.due = time.Time{}
			w.pass(10 * time.Second)
			return
		}
	}
	w.t.Fatal("the conductor does not come to an end")
}

// conduct tells whether the conductor came to an end.
func (w *world) conduct() (ended bool) {
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(killed); !ok {
				panic(r)
			}
		}
	}()
	c := NewConductor(w.journal, w.engine, w, zap.NewNop())
	c.now = func() time.Time { return w.now }
	c.sleep = func(_ context.Context, d time.Duration) { w.pass(max(d, time.Second)) }
	c.step = w.step
	if err := c.Run(w.t.Context()); err != nil {
		w.t.Fatalf("conductor: %v", err)
	}
	return true
}

func (w *world) step(name string) {
	w.steps++
	w.seen = append(w.seen, name)
	if w.steps == w.killAt {
		w.strike(w)
	}
}

// strikeAt lets the strike happen at a time instead of at a step.
func (w *world) strikeAt(due time.Time) { w.due = due }

// pass lets time pass for everybody else.
func (w *world) pass(d time.Duration) {
	// Nobody but the conductor writes them, and it sleeps.
	w.check()
	for end := w.now.Add(d); w.now.Before(end); {
		w.now = w.now.Add(min(200*time.Millisecond, end.Sub(w.now)))
		if !w.due.IsZero() && !w.now.Before(w.due) {
			w.due = time.Time{}
			w.strike(w)
		}
		for _, side := range []Side{Old, New} {
			w.sensors[side].live(w)
		}
		if w.sensors[Old].serving && w.sensors[New].serving {
			w.t.Fatal("both sensors serve")
		}
	}
}

// check asserts what must hold at every instant.
func (w *world) check() {
	w.t.Helper()
	compose, env := w.file("docker-compose.yml"), w.file(".env")
	if compose != composeText && compose != strings.Replace(composeText, "x86:a", "x86:b", 1) {
		w.t.Fatalf("docker-compose.yml is\n%s", compose)
	}
	if env != envText && env != strings.Replace(envText, "=hs", "=hs-222222", 1) {
		w.t.Fatalf(".env is\n%s", env)
	}
	info, err := os.Stat(filepath.Join(w.journal.Dir(), journalFile))
	if err != nil {
		w.t.Fatal(err)
	}
	if w.known != nil && info.ModTime().Equal(w.knownAt) {
		return
	}
	w.knownAt = info.ModTime()
	if w.known, err = w.journal.Read(); err != nil || w.known == nil {
		w.t.Fatalf("journal: %v %v", w.known, err)
	}
}

func (w *world) file(name string) string {
	text, err := os.ReadFile(filepath.Join(w.deploy.Dir, name))
	if err != nil {
		w.t.Fatal(err)
	}
	return string(text)
}

// live is what a sensor does of its own accord.
func (s *fakeSensor) live(w *world) {
	if s.exists && !s.running && !s.back.IsZero() && !w.now.Before(s.back) {
		s.running, s.back, s.since = true, time.Time{}, w.now
		s.restarts++
	}
	if s.dies && s.running && w.now.Sub(s.since) > time.Second {
		s.end(w, true)
	}
	// A manager needs a moment to come up, and to do anything.
	if !s.running || s.mute || w.now.Sub(s.since) < 400*time.Millisecond {
		return
	}
	r := w.known
	mine := r.Serving() == s.side
	if r.Done {
		mine = (r.Phase == Committed) == (s.side == New)
	}
	switch {
	case mine && s.serving:
		s.tell(w, Report{Serving: true, Proof: s.proof()})
	case mine:
		s.take(w)
	case s.serving && s.stubborn:
	default:
		s.serving, s.network = false, false
		if w.holder == s {
			w.holder = nil
		}
		s.tell(w, Report{Idle: true, Prepared: w.now.Sub(s.since) > 2*time.Second})
	}
}

func (s *fakeSensor) proof() Proof {
	if s.useless {
		return Proof{Poll: true}
	}
	return Proof{Poll: true, Event: true, Network: true, Services: []string{"1"}}
}

func (s *fakeSensor) tell(w *world, r Report) {
	if reflect.DeepEqual(r, s.told) {
		return
	}
	s.told = r
	if err := w.journal.Report(s.side, r); err != nil {
		w.t.Fatal(err)
	}
}

// take serves when the spool is free, and the network, which the kernel keeps for
// a killed sensor.
func (s *fakeSensor) take(w *world) {
	other := w.sensors[Old]
	if s.side == Old {
		other = w.sensors[New]
	}
	if w.holder == nil {
		w.holder = s
	}
	if w.holder == s && !other.network {
		s.serving, s.network = true, true
	}
}

// end is a kill -9 of a container: its processes are gone, its network stays.
func (s *fakeSensor) end(w *world, comesBack bool) {
	if !s.running {
		return
	}
	s.running, s.serving = false, false
	if w.holder == s {
		w.holder = nil
	}
	s.back = time.Time{}
	if comesBack {
		s.back = w.now.Add(time.Second)
	}
}

var errAway = errors.New("engine does not answer")

func (e *fakeEngine) err() error {
	if e.w.now.Before(e.away) {
		return errAway
	}
	return nil
}

func (e *fakeEngine) of(project string) *fakeSensor {
	for _, s := range e.w.sensors {
		if s.project == project {
			return s
		}
	}
	return &fakeSensor{}
}

func (e *fakeEngine) byID(id string) *fakeSensor {
	for _, s := range e.w.sensors {
		if s.id == id {
			return s
		}
	}
	e.w.t.Fatalf("container %q", id)
	return nil
}

func (e *fakeEngine) Sensor(_ context.Context, project string, _ Deployment) (State, error) {
	if s := e.of(project); s.exists {
		return State{ID: s.id, Running: s.running, Restarts: s.restarts, ExitCode: 1}, e.err()
	}
	return State{}, e.err()
}

func (e *fakeEngine) Start(_ context.Context, id string) error {
	if err := e.err(); err != nil {
		return err
	}
	s := e.byID(id)
	if !s.running {
		s.running, s.back, s.since, s.restarts = true, time.Time{}, e.w.now, 0
	}
	return nil
}

// Stop is a clean end: nothing is left in the kernel.
func (e *fakeEngine) Stop(_ context.Context, id string) error {
	if err := e.err(); err != nil {
		return err
	}
	s := e.byID(id)
	s.end(e.w, false)
	s.network, s.back = false, time.Time{}
	return nil
}

func (e *fakeEngine) Kill(_ context.Context, id string) error {
	if err := e.err(); err != nil {
		return err
	}
	s := e.byID(id)
	s.end(e.w, false)
	s.back = time.Time{}
	return nil
}

func (e *fakeEngine) RemoveProject(_ context.Context, project string, _ Deployment) error {
	if err := e.err(); err != nil {
		return err
	}
	s := e.of(project)
	if s.exists {
		s.end(e.w, false)
		s.exists, s.network, s.back = false, false, time.Time{}
		e.w.removed[project] = true
	}
	return nil
}

func (e *fakeEngine) RemoveImage(_ context.Context, id string) error {
	e.w.removed[id] = true
	return e.err()
}

func (e *fakeEngine) HasImage(_ context.Context, id string) (bool, error) {
	return !e.w.removed[id], e.err()
}

func (e *fakeEngine) Flush() error {
	e.w.flushed = true
	return e.err()
}

func (w *world) Up(_ context.Context, _ Deployment, project, _ string, _ bool) error {
	if err := w.engine.err(); err != nil {
		return err
	}
	s := w.engine.of(project)
	if want := "x86:" + map[Side]string{Old: "a", New: "b"}[s.side]; !strings.Contains(w.file("docker-compose.yml"), want) {
		return fmt.Errorf("the compose file does not name %s", want)
	}
	if s.side == New && w.removed[imageNew] {
		return errors.New("no such image")
	}
	if !s.exists || !s.running {
		s.exists, s.running, s.since, s.back = true, true, w.now, time.Time{}
	}
	return nil
}

func (w *world) CleanUp(_ context.Context, container string) error {
	w.engine.byID(container).network = false
	return nil
}

// expect wants one sensor alone, and files and journal that say so.
func (w *world) expect(phase Phase) {
	w.t.Helper()
	r, err := w.journal.Read()
	if err != nil {
		w.t.Fatal(err)
	}
	if !r.Done || r.Phase != phase {
		w.t.Errorf("the journal says %s (done: %v, %s), want %s", r.Phase, r.Done, r.Reason, phase)
	}
	stays, goes, image, project := Old, New, "x86:a", "=hs\n"
	if r.Phase == Committed {
		stays, goes, image, project = New, Old, "x86:b", "=hs-222222\n"
		if !w.flushed {
			w.t.Error("the old sensor is gone before the new one is on the disk")
		}
	}
	if s := w.sensors[stays]; !s.serving || !s.network || !s.running {
		w.t.Errorf("the %s sensor does not serve: %+v", stays, s)
	}
	if s := w.sensors[goes]; s.exists || s.network {
		w.t.Errorf("the %s sensor is still there: %+v", goes, s)
	}
	if !strings.Contains(w.file("docker-compose.yml"), image) || !strings.Contains(w.file(".env"), project) {
		w.t.Errorf("files are\n%s%s", w.file("docker-compose.yml"), w.file(".env"))
	}
	left, err := filepath.Glob(filepath.Join(w.journal.Dir(), "*.good*"))
	if err != nil || len(left) > 0 {
		w.t.Errorf("copies are left: %v", left)
	}
}

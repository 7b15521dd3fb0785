package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"honeysens.org/dockersensor/packaging/lab/admin"
	"honeysens.org/dockersensor/packaging/lab/host"
	"honeysens.org/dockersensor/packaging/lab/labtest"
	"honeysens.org/dockersensor/packaging/lab/scenario"
	"honeysens.org/dockersensor/shared/event"
)

// managerPackage is what a firmware of the lab has of its own.
const managerPackage = "honeysens.org/dockersensor/manager"

// updateWithin is how long an update may take on a busy machine.
const updateWithin = 6 * time.Minute

// TestE2EUpdate takes a sensor from one revision to the next over the server,
// after some that it must refuse. What takes longer is in TestLabUpdate.
func TestE2EUpdate(t *testing.T) {
	u := deployed(t, "upd", 2*time.Minute)
	u.step("firmware that must not stay", func(t *testing.T, u *updating) { refusesAll(t, u, badArchives()) })
	u.step("a revision that works", goodUpdate)
	u.step("nothing is left of either revision", leavesNothing)
}

// deployed is a sensor that works, with so much time for each part of an update.
func deployed(t *testing.T, prefix string, updateTime time.Duration) *updating {
	t.Helper()
	s := labtest.New(t, prefix)
	labtest.Must(t, s.Up(t.Context()))
	labtest.Must(t, s.Assign(t.Context()))
	settle(t, s)
	before := look(t, s)
	labtest.Must(t, s.Deploy(t.Context(), map[string]string{
		"UPDATE_TIME=": "UPDATE_TIME=" + updateTime.String(),
	}))
	diagnoseUpdate(t, s)
	ready(t, s, time.Time{})
	return &updating{Scenario: s, t: t, before: before}
}

// leavesNothing wants nothing on the host but what is of the sensor that runs, and
// no trace at all after its end.
func leavesNothing(t *testing.T, u *updating) {
	hostUnchanged(t, u.Scenario, u.before)
	_, err := u.Compose(t.Context(), "down", "--volumes")
	labtest.Must(t, err)
	hostIsAsBefore(t, u.Scenario, u.before)
}

// step is a part of a test; what comes after a failure is left out.
func (u *updating) step(name string, test func(*testing.T, *updating)) {
	if u.t.Failed() {
		return
	}
	u.t.Run(name, func(t *testing.T) { test(t, &updating{Scenario: u.Scenario, t: t, before: u.before}) })
}

// updating is a sensor in the lab that is updated.
type updating struct {
	*scenario.Scenario
	t *testing.T
	// before is the host without a sensor.
	before picture
}

// goodUpdate goes from one revision to the next while it is attacked.
func goodUpdate(t *testing.T, u *updating) {
	firmware := u.offer(scenario.Firmware{Revision: "lab-b", Manager: managerPackage})
	before := u.files()
	oldProject := project(before[".env"])
	labtest.Attack(t, u.Scenario)
	since := labtest.LastEvent(t, u.Scenario)

	probe := u.probe()
	labtest.Must(t, u.Server.WantFirmware(t.Context(), u.Sensor.ID, firmware.ID))
	u.poll()
	u.reports("updating", func(s admin.Status) bool { return s.Status == 2 })
	u.runs("lab-b", oldProject)
	gap, tries := probe.end()
	t.Logf("new connections to a honeypot failed for %s in %d tries; target: under 2 s", gap.Round(10*time.Millisecond), tries)
	if gap > 10*time.Second {
		t.Errorf("new connections failed for %s", gap)
	}
	labtest.Arrives(t, u.Scenario, since, "an attack during the update", func(e admin.Event) bool {
		return e.Source == host.AttackerV4 && e.Service == event.ServiceGeneric
	})
	labtest.Arrives(t, u.Scenario, since, "the notice of the update", func(e admin.Event) bool { return e.Summary == "Update to lab-b" })
	labtest.Attack(t, u.Scenario)
	wantOneLine(t, before, u.files(), u.Revision(), "lab-b", oldProject)
}

// offer builds a firmware and uploads it.
func (u *updating) offer(f scenario.Firmware) admin.Firmware {
	u.t.Helper()
	path, err := u.Build(u.t.Context(), f)
	labtest.Must(u.t, err)
	firmware, err := u.Server.UploadFirmware(u.t.Context(), path)
	labtest.Must(u.t, err)
	labtest.Must(u.t, os.Remove(path))
	return firmware
}

func (u *updating) poll() {
	u.t.Helper()
	_, err := u.Exec(u.t.Context(), "manager", "poll")
	labtest.Must(u.t, err)
}

// reports waits for a status at the server.
func (u *updating) reports(what string, wanted func(admin.Status) bool) {
	u.t.Helper()
	ctx, cancel := context.WithTimeout(u.t.Context(), updateWithin)
	defer cancel()
	if _, err := u.Server.WaitSensor(ctx, u.Sensor.ID, func(s admin.Sensor) bool { return s.Status != nil && wanted(*s.Status) }); err != nil {
		u.t.Fatalf("the server hears of no sensor that is %s: %v", what, err)
	}
}

// runs waits until a revision serves alone, without a trace of the update.
func (u *updating) runs(revision, gone string) {
	u.t.Helper()
	u.reports("revision "+revision, func(s admin.Status) bool { return s.Status == 1 && s.SWVersion == revision })
	eventually(u.t, "one sensor is left", func() error {
		names := u.containers()
		if len(names) != 1 || strings.HasPrefix(names[0], gone+"-sensor") {
			return fmt.Errorf("containers: %v", names)
		}
		return u.volumes()
	})
	ready(u.t, u.Scenario, time.Time{})
}

// eventually repeats a check until it holds, for as long as an update may take.
func (u *updating) eventually(what string, check func() error) {
	u.t.Helper()
	within(u.t, updateWithin, what, check)
}

// containers returns the names of all on the sensor host.
func (u *updating) containers() []string {
	u.t.Helper()
	out, err := u.Lab.Docker(u.t.Context(), "ps", "--all", "--format", "{{.Names}}").Output()
	labtest.Must(u.t, err)
	return strings.Fields(string(out))
}

// files returns the operator's files.
func (u *updating) files() map[string]string {
	u.t.Helper()
	files := map[string]string{}
	for _, name := range []string{"docker-compose.yml", ".env"} {
		text, err := os.ReadFile(filepath.Join(u.Dir, name))
		labtest.Must(u.t, err)
		files[name] = string(text)
	}
	return files
}

func project(env string) string {
	_, after, _ := strings.Cut(env, "COMPOSE_PROJECT_NAME=")
	name, _, _ := strings.Cut(after, "\n")
	return name
}

// wantOneLine wants the one value in the one, and the one line in the other.
func wantOneLine(t *testing.T, before, after map[string]string, oldRevision, revision, oldProject string) {
	t.Helper()
	want := strings.Replace(before["docker-compose.yml"], "sensorx86:"+oldRevision+"\n", "sensorx86:"+revision+"\n", 1)
	if after["docker-compose.yml"] != want {
		t.Errorf("docker-compose.yml has become\n%s", after["docker-compose.yml"])
	}
	newProject := project(after[".env"])
	want = strings.Replace(before[".env"], "="+oldProject, "="+newProject, 1)
	if after[".env"] != want || newProject == oldProject {
		t.Errorf(".env has become\n%s", after[".env"])
	}
	t.Logf("diff: image: honeysens/sensorx86:%s -> %s; COMPOSE_PROJECT_NAME=%s -> %s", oldRevision, revision, oldProject, newProject)
}

// probe connects to the honeypot time and again.
type probe struct {
	stop   context.CancelFunc
	done   sync.WaitGroup
	failed time.Duration
	tries  int
}

// probeEvery is between two connections, and at most how long one is waited for.
const probeEvery = 100 * time.Millisecond

func (u *updating) probe() *probe {
	ctx, stop := context.WithCancel(u.t.Context())
	p := &probe{stop: stop}
	p.done.Go(func() { p.run(ctx, u.Scenario) })
	u.t.Cleanup(func() { p.end() })
	return p
}

// run measures the longest time from a connection that failed to the next that
// was greeted.
func (p *probe) run(ctx context.Context, s *scenario.Scenario) {
	var since time.Time
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		began := time.Now()
		err := s.On(host.Attacker, func() error { return greeted(ctx, fmt.Sprintf("%s:%d", s.TargetV4, s.Port)) })
		p.tries++
		switch {
		case ctx.Err() != nil:
		case err == nil && !since.IsZero():
			p.failed = max(p.failed, time.Since(since))
			since = time.Time{}
		case err != nil && since.IsZero():
			since = began
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// greeted connects and reads the first byte, with little patience.
func greeted(ctx context.Context, address string) error {
	dialer := net.Dialer{Timeout: 300 * time.Millisecond}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 1))
	return err
}

func (p *probe) end() (time.Duration, int) {
	p.stop()
	p.done.Wait()
	return p.failed, p.tries
}

// diagnoseUpdate tells what all containers have to say when the test has failed.
func diagnoseUpdate(t *testing.T, s *scenario.Scenario) {
	t.Helper()
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		journal, err := exec.CommandContext(ctx, "sh", "-c", "cd "+filepath.Join(s.Dir, "state", "update")+" && tail -n 200 *.json").CombinedOutput()
		t.Logf("journal: %v\n%s", err, journal)
		out, err := s.Lab.Docker(ctx, "ps", "--all", "--format", "{{.Names}}\t{{.Status}}").CombinedOutput()
		t.Logf("containers: %v\n%s", err, out)
		for _, name := range strings.Fields(string(out)) {
			if text, err := s.Lab.Docker(ctx, "logs", "--tail", "80", name).CombinedOutput(); err == nil {
				t.Logf("log of %s:\n%s", name, text)
			}
		}
		status, err := json.Marshal(s.Sensor)
		t.Logf("sensor: %v %s", err, status)
	})
}

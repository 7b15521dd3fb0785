package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"honeysens.org/dockersensor/packaging/lab/admin"
	"honeysens.org/dockersensor/packaging/lab/host"
	"honeysens.org/dockersensor/packaging/lab/labtest"
	"honeysens.org/dockersensor/packaging/lab/scenario"
	"honeysens.org/dockersensor/shared/event"
)

// strike is what happens to the host in the middle of an update.
type strike struct {
	name string
	// from is the phase that has what it strikes. Before that it strikes nothing, or
	// the same as another.
	from string
	do   func(*updating, journal)
}

func strikes() []strike {
	return []strike{
		{"kill -9 of the old", "offered", func(u *updating, j journal) { u.kill(j.old) }},
		{"kill -9 of the new", "started", func(u *updating, j journal) { u.appears(j); u.kill(j.To.Project) }},
		{"kill -9 of both", "loaded", func(u *updating, j journal) { u.appears(j); u.kill(j.old, j.To.Project, conductor) }},
		{"restart of the engine", "offered", func(u *updating, _ journal) { labtest.Must(u.t, u.Lab.RestartEngine(u.t.Context())) }},
		{"power cut", "offered", func(u *updating, _ journal) { labtest.Must(u.t, u.Lab.Reboot(u.t.Context())) }},
	}
}

// phases of an update in their order; the last two are its ends.
func phases() []string {
	return []string{"offered", "downloaded", "verified", "loaded", "started", "trial", "committed", "rolled back"}
}

// mainStrikes are the cells of the table that are tried always; with
// UPDATE_STRIKES=all it is the whole table.
func mainStrikes() map[string][]int {
	return map[string][]int{
		"offered": {4}, "downloaded": {0}, "verified": {3}, "loaded": {2, 4},
		"started": {1, 3}, "trial": {0, 1, 4}, "committed": {2, 4}, "rolled back": {0, 4},
	}
}

// journal is what the tests read of an update's journal.
type journal struct {
	Phase string `json:"phase"`
	Done  bool   `json:"done"`
	To    struct {
		Project string `json:"project"`
	} `json:"to"`
	// old is the project that served before: the journal has it late.
	old string
}

// TestLabUpdateStrikes is the table of the states of an update and what can
// strike there. Afterwards one sensor serves alone, the operator's files are whole
// and name it, and the events of before and after have arrived.
func TestLabUpdateStrikes(t *testing.T) {
	u := deployed(t, "upds", 3*time.Minute)
	good := map[string]int{}
	for _, revision := range []string{"lab-b", "lab-c"} {
		good[revision] = u.offer(scenario.Firmware{Revision: revision, Manager: managerPackage}).ID
	}
	bad := u.offer(scenario.Firmware{
		Revision: "bad", Alone: filepath.Join(labtest.Root(t), "out", "bin", managerProgram), Dockerfile: takesPart + `ENTRYPOINT ["/program", "version"]`,
	}).ID
	for at, phase := range phases() {
		for n, s := range strikes() {
			if at < slices.Index(phases(), s.from) {
				continue
			}
			if os.Getenv("UPDATE_STRIKES") != "all" && !slices.Contains(mainStrikes()[phase], n) {
				continue
			}
			u.step(phase+", "+s.name, func(t *testing.T, u *updating) {
				before, revision := u.version(), "lab-b"
				if before == revision {
					revision = "lab-c"
				}
				firmware := good[revision]
				if phase == "rolled back" {
					revision, firmware = "bad", bad
				}
				struck(t, u, phase, s, revision, firmware, before)
			})
		}
	}
}

func struck(t *testing.T, u *updating, phase string, s strike, revision string, firmware int, before string) {
	_, err := u.Exec(t.Context(), "manager", "update", "retry")
	labtest.Must(t, err)
	since := labtest.LastEvent(t, u.Scenario)
	honeypotAnswers(t, u.Scenario, u.Port)
	old := project(u.files()[".env"])
	labtest.Must(t, u.Server.WantFirmware(t.Context(), u.Sensor.ID, firmware))
	u.poll()
	j := u.reaches(phase)
	j.old = old
	began := time.Now()
	s.do(u, j)
	serves := u.settles(revision, before)
	t.Logf("%s at %q: revision %s serves, settled after %s", s.name, phase, serves, time.Since(began).Round(time.Second))
	if phase == "rolled back" && serves != before {
		t.Errorf("bad firmware was committed")
	}
	honeypotAnswers(t, u.Scenario, u.Port)
	u.eventually("both events arrive", func() error { return u.countAttacks(since, 2) })
	labtest.Must(t, u.Server.WantFirmware(t.Context(), u.Sensor.ID, 0))
}

func (u *updating) countAttacks(since int64, want int) error {
	events, err := u.Server.Events(u.t.Context(), since, 0)
	if err != nil {
		return err
	}
	n := 0
	for _, e := range events {
		if e.Source == host.AttackerV4 && e.Service == event.ServiceGeneric {
			n++
		}
	}
	if n < want {
		return fmt.Errorf("%d of %d events of the honeypot have arrived", n, want)
	}
	return nil
}

// reaches waits until the journal says that a phase has begun.
func (u *updating) reaches(phase string) journal {
	u.t.Helper()
	ctx, cancel := context.WithTimeout(u.t.Context(), updateWithin)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		j, err := u.journal()
		if err == nil && j.Phase == phase {
			return j
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			u.t.Fatalf("the update does not come to %q: %+v, %v", phase, j, err)
		}
	}
}

func (u *updating) journal() (journal, error) {
	var j journal
	text, err := os.ReadFile(filepath.Join(u.Dir, "state", "update", "journal.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return j, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &j)
	}
	return j, err
}

// settles waits until the update has ended, and returns the revision that serves:
// one of two, alone, and named by the operator's files.
func (u *updating) settles(revisions ...string) string {
	u.t.Helper()
	serves := ""
	u.eventually("the update settles", func() (err error) {
		serves, err = u.settled()
		return err
	})
	// The next poll by itself may be a minute away.
	u.eventually("a poll", func() error {
		_, err := u.Exec(u.t.Context(), "manager", "poll")
		return err
	})
	u.reports("running with what its files name", func(s admin.Status) bool { return s.Status == 1 && s.SWVersion == serves })
	ready(u.t, u.Scenario, time.Time{})
	if serves != revisions[0] && serves != revisions[1] {
		u.t.Errorf("revision %q serves, want one of %q", serves, revisions)
	}
	return serves
}

// settled returns the revision of the only container there is.
func (u *updating) settled() (string, error) {
	j, err := u.journal()
	if err != nil {
		return "", err
	}
	if j.Phase != "" {
		return "", fmt.Errorf("the journal says %q", j.Phase)
	}
	_, revision, _ := strings.Cut(imageIn(u.files()["docker-compose.yml"]), ":")
	if err := errors.Join(u.alone(revision), u.volumes()); err != nil {
		return "", err
	}
	left, err := filepath.Glob(filepath.Join(u.Dir, "state", "update", "*.good*"))
	if err != nil {
		return "", err
	}
	if len(left) > 0 {
		return "", fmt.Errorf("copies are left: %v", left)
	}
	return revision, nil
}

// imageIn returns the image that a compose file names for the sensor.
func imageIn(compose string) string {
	_, after, _ := strings.Cut(compose, "image: honeysens/")
	name, _, _ := strings.Cut(after, "\n")
	return name
}

// conductor stands for the container that conducts the update.
const conductor = "conductor"

// appears waits for the new sensor's container where the phase makes it.
func (u *updating) appears(j journal) {
	u.t.Helper()
	if j.Phase != "started" {
		return
	}
	u.eventually("the new sensor has a container", func() error {
		out, err := u.Lab.Docker(u.t.Context(), "ps", "--quiet", "--filter", "label=com.docker.compose.project="+j.To.Project).Output()
		if err == nil && len(out) == 0 {
			err = errors.New("there is none")
		}
		return err
	})
}

// kill kills all processes of the containers of projects at once, as the kernel
// does when memory is short: the engine is not asked.
func (u *updating) kill(projects ...string) {
	u.t.Helper()
	var ids []string
	for _, project := range projects {
		if project == "" {
			continue
		}
		filter := "label=com.docker.compose.project=" + project
		if project == conductor {
			filter = "label=org.honeysens.sensor.conductor"
		}
		out, err := u.Lab.Docker(u.t.Context(), "ps", "--quiet", "--no-trunc", "--filter", filter).Output()
		labtest.Must(u.t, err)
		ids = append(ids, strings.Fields(string(out))...)
	}
	n := 0
	groups, err := filepath.Glob("/proc/[0-9]*/cgroup")
	labtest.Must(u.t, err)
	for _, path := range groups {
		text, err := os.ReadFile(path)
		if err != nil || !namesOne(string(text), ids) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		labtest.Must(u.t, err)
		if syscall.Kill(pid, syscall.SIGKILL) == nil {
			n++
		}
	}
	u.t.Logf("killed %d processes of %d containers", n, len(ids))
}

func namesOne(text string, ids []string) bool {
	for _, id := range ids {
		if strings.Contains(text, id) {
			return true
		}
	}
	return false
}

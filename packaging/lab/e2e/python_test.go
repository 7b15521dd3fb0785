package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"honeysens.org/dockersensor/packaging/lab/host"
	"honeysens.org/dockersensor/packaging/lab/labtest"
	"honeysens.org/dockersensor/packaging/lab/scenario"
)

// pythonRevision is that of the stand-in for the Python sensor.
const pythonRevision = "2.9.0"

// TestLabUpdatePython goes from this sensor to a stand-in for the Python one, which
// knows nothing of turns, and from there to this one again: by the old sensor's
// compose file and .env, and by the steps that the old sensor takes.
func TestLabUpdatePython(t *testing.T) {
	s := labtest.New(t, "updp")
	labtest.Must(t, s.Up(t.Context()))
	labtest.Must(t, s.Assign(t.Context()))
	labtest.Must(t, s.DeployAs(t.Context(), host.Deployment{
		Compose: filepath.Join(labtest.Root(t), "packaging", "deploy", "testdata", "docker-compose.old.yml"),
		Edit:    map[string]string{"@REVISION@": s.Revision()},
		// As the old sensor writes it, without an end of the line.
		Project: "hs_1_1700000000",
	}))
	diagnoseUpdate(t, s)
	ready(t, s, time.Time{})
	u := &updating{Scenario: s, t: t}
	// It is made of the image of the first one, which will be gone.
	later := u.offer(scenario.Firmware{Revision: "lab-c", Manager: managerPackage})
	u.step("to the Python sensor", toPython)
	u.step("from the Python sensor", fromPython)
	u.step("and on", func(t *testing.T, u *updating) { onFromPython(t, u, later.ID) })
}

func toPython(t *testing.T, u *updating) {
	before := u.files()
	script, err := os.ReadFile(filepath.Join(labtest.Root(t), "packaging", "lab", "e2e", "testdata", "python-sensor.sh"))
	labtest.Must(t, err)
	// The Python sensor has the docker command, ours has not.
	docker, err := exec.LookPath("docker")
	labtest.Must(t, err)
	program, err := os.ReadFile(docker)
	labtest.Must(t, err)
	firmware := u.offer(scenario.Firmware{
		Revision: pythonRevision, Files: map[string]string{"python-sensor": string(script), "docker": string(program)},
		Dockerfile: "LABEL org.honeysens.sensor.handover=\nCOPY python-sensor docker /usr/bin/\nENTRYPOINT [\"/usr/bin/python-sensor\"]",
	})
	labtest.Must(t, u.Server.WantFirmware(t.Context(), u.Sensor.ID, firmware.ID))
	u.poll()
	u.eventually("the Python sensor runs alone", func() error {
		j, err := u.journal()
		if err != nil {
			return err
		}
		if j.Phase != "committed" || !j.Done {
			return fmt.Errorf("the journal says %+v", j)
		}
		return errors.Join(u.alone(pythonRevision), u.volumes())
	})
	wantOneLine(t, before, u.files(), u.Revision(), pythonRevision, project(before[".env"]))
}

func fromPython(t *testing.T, u *updating) {
	before := u.files()
	path, err := u.Build(t.Context(), scenario.Firmware{Revision: "lab-b", Manager: managerPackage})
	labtest.Must(t, err)
	offer := filepath.Join(u.Dir, "offer")
	labtest.Must(t, os.Mkdir(offer, 0o755))
	labtest.Must(t, os.Rename(path, filepath.Join(offer, "firmware.tar.gz")))
	labtest.Must(t, u.Server.WantFirmware(t.Context(), u.Sensor.ID, 0))
	began := time.Now()
	labtest.Must(t, os.WriteFile(filepath.Join(offer, "revision"), []byte("lab-b\n"), 0o644))
	ready(t, u.Scenario, began)
	t.Logf("services run %s after the Python sensor began its update", time.Since(began).Round(time.Second))
	u.eventually("the Python sensor is gone", func() error { return errors.Join(u.alone("lab-b"), u.volumes()) })
	if got := u.files()["docker-compose.yml"]; got != strings.Replace(before["docker-compose.yml"], ":"+pythonRevision, ":lab-b", 1) {
		t.Errorf("docker-compose.yml is\n%s", got)
	}
	labtest.Must(t, os.RemoveAll(offer))
	labtest.Attack(t, u.Scenario)
}

// onFromPython updates a sensor that the Python one has started: compose knows
// its files by their paths in that one's container.
func onFromPython(t *testing.T, u *updating, firmware int) {
	before := u.files()
	labtest.Must(t, u.Server.WantFirmware(t.Context(), u.Sensor.ID, firmware))
	u.poll()
	u.runs("lab-c", project(before[".env"]))
	wantOneLine(t, before, u.files(), "lab-b", "lab-c", project(before[".env"]))
	labtest.Attack(t, u.Scenario)
}

// alone wants one container, of a revision, as the operator's files have it.
func (u *updating) alone(revision string) error {
	out, err := u.Lab.Docker(u.t.Context(), "ps", "--all", "--format", `{{.Image}} {{.Label "com.docker.compose.project"}} {{.State}}`).Output()
	if err != nil {
		return err
	}
	want := fmt.Sprintf("honeysens/sensorx86:%s %s running", revision, project(u.files()[".env"]))
	if got := strings.TrimSpace(string(out)); got != want {
		return fmt.Errorf("containers are %q, want %q", got, want)
	}
	return nil
}

// volumes wants that of the project and no others.
func (u *updating) volumes() error {
	out, err := u.Lab.Docker(u.t.Context(), "volume", "ls", "--quiet").Output()
	if err != nil {
		return err
	}
	if got, want := strings.TrimSpace(string(out)), project(u.files()[".env"])+"_docker_overlay"; got != want {
		return fmt.Errorf("volumes are %q, want %q", got, want)
	}
	return nil
}

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"honeysens.org/dockersensor/packaging/lab/admin"
	"honeysens.org/dockersensor/packaging/lab/labtest"
	"honeysens.org/dockersensor/packaging/lab/scenario"
)

// bad is a firmware that must not stay.
type bad struct {
	name     string
	firmware scenario.Firmware
	// says is a part of the reason that the server hears.
	says string
}

// badArchives are refused before anything of them is loaded, but for the last,
// which the host's engine has to start.
func badArchives() []bad {
	return []bad{
		{"truncated", scenario.Firmware{Alone: pauseProgram, Cut: 100}, "EOF"},
		{"wrong platform", scenario.Firmware{Alone: pauseProgram, Platform: "bbb"}, "bbb"},
		{"wrong version", scenario.Firmware{Alone: pauseProgram, Version: "other"}, "other"},
		{"no image", scenario.Firmware{NoImage: true}, "no firmware.img"},
		{"wrong tag", scenario.Firmware{Alone: pauseProgram, Tag: "another"}, "another"},
		{"exits at once", scenario.Firmware{Alone: managerProgram, Dockerfile: takesPart + "ENTRYPOINT [\"/program\", \"version\"]"}, "again and again"},
	}
}

// badImages begin to run.
func badImages() []bad {
	return []bad{
		{"does not start", scenario.Firmware{Alone: pauseProgram, Dockerfile: takesPart + "ENTRYPOINT [\"/no/such/program\"]"}, "compose cannot start"},
		{"does not start, and knows no hand-over", scenario.Firmware{Alone: pauseProgram, Dockerfile: "ENTRYPOINT [\"/no/such/program\"]"}, "compose cannot start"},
		{"exits at once, and knows no hand-over", scenario.Firmware{Alone: managerProgram, Dockerfile: "ENTRYPOINT [\"/program\", \"version\"]"}, "again and again"},
		{"never polls", scenario.Firmware{Alone: pauseProgram, Dockerfile: takesPart + "ENTRYPOINT [\"/program\"]"}, "did not get ready"},
		{"its engine never runs", scenario.Firmware{Manager: managerPackage, Dockerfile: "COPY revision /usr/bin/containerd"}, "did not get ready"},
		{"polls, and its services never answer", scenario.Firmware{Manager: managerPackage, Dockerfile: "COPY revision /opt/cni/bin/bridge"}, "did not prove itself"},
	}
}

// Programs that a bad image may consist of: one that waits for ever, and one
// that ends at once when it is asked for its version. takesPart makes it one that
// says it takes part in a hand-over.
const (
	pauseProgram   = "pause"
	managerProgram = "manager"
	takesPart      = "LABEL org.honeysens.sensor.handover=1\n"
)

// TestLabUpdateBadFirmware offers what must not stay, and a disk that is full.
func TestLabUpdateBadFirmware(t *testing.T) {
	u := deployed(t, "updb", 75*time.Second)
	u.step("archives", func(t *testing.T, u *updating) { refusesAll(t, u, badArchives()) })
	u.step("images", func(t *testing.T, u *updating) { refusesAll(t, u, badImages()) })
	u.step("full disk", refusesWithoutSpace)
	// The image that it is built on goes with the first update.
	next := u.offer(scenario.Firmware{Revision: "lab-c", Manager: managerPackage})
	u.step("hold, retry", holdsAndRetries)
	u.step("image that somebody removes", func(t *testing.T, u *updating) { startsOver(t, u, next.ID) })
}

// refusesAll offers one after the other.
func refusesAll(t *testing.T, u *updating, all []bad) {
	for n, b := range all {
		b.firmware.Revision = fmt.Sprintf("bad-%d", n)
		if b.firmware.Alone != "" {
			b.firmware.Alone = filepath.Join(labtest.Root(t), "out", "bin", b.firmware.Alone)
		}
		ok := t.Run(b.name, func(t *testing.T) { refuses(t, &updating{Scenario: u.Scenario, t: t}, b) })
		if !ok {
			return
		}
	}
}

// refusesWithoutSpace has a good firmware offered while its disk is too small.
func refusesWithoutSpace(t *testing.T, u *updating) {
	const dir = "/mnt/state/update"
	_, err := u.Exec(t.Context(), "mount", "-t", "tmpfs", "-o", "size=280m,uid=10001,gid=10001,mode=700", "tmpfs", dir)
	labtest.Must(t, err)
	refuses(t, u, bad{firmware: scenario.Firmware{Revision: "large", Manager: managerPackage}, says: "MB free, the update needs"})
	_, err = u.Exec(t.Context(), "umount", dir)
	labtest.Must(t, err)
}

// holdsAndRetries has the operator hold back an update, and let it begin.
func holdsAndRetries(t *testing.T, u *updating) {
	project := project(u.files()[".env"])
	firmware := u.offer(scenario.Firmware{Revision: "lab-b", Manager: managerPackage})
	_, err := u.Exec(t.Context(), "manager", "update", "hold")
	labtest.Must(t, err)
	labtest.Must(t, u.Server.WantFirmware(t.Context(), u.Sensor.ID, firmware.ID))
	u.poll()
	u.eventually("update status tells of the hold", func() error {
		out, err := u.Exec(t.Context(), "manager", "update", "status")
		if err == nil && !strings.Contains(out, "held") {
			err = fmt.Errorf("update status: %s", out)
		}
		return err
	})
	if len(u.containers()) != 1 {
		t.Errorf("containers: %v", u.containers())
	}
	_, err = u.Exec(t.Context(), "manager", "update", "retry")
	labtest.Must(t, err)
	u.runs("lab-b", project)
}

// startsOver has the image of a good firmware, lab-c, removed before it is started.
func startsOver(t *testing.T, u *updating, firmware int) {
	project := project(u.files()[".env"])
	since := labtest.LastEvent(t, u.Scenario)
	labtest.Must(t, u.Server.WantFirmware(t.Context(), u.Sensor.ID, firmware))
	u.poll()
	u.reaches("loaded")
	if out, err := u.Lab.Docker(t.Context(), "rmi", "--force", "honeysens/sensorx86:lab-c").CombinedOutput(); err != nil {
		t.Fatalf("remove the image: %v: %s", err, out)
	}
	u.eventually("an event says why", func() error {
		return u.heard(since, "Update to lab-c starts over", "was removed from the host's engine")
	})
	u.runs("lab-c", project)
}

func refuses(t *testing.T, u *updating, b bad) {
	revision, before, containers := u.version(), u.files(), u.containers()
	firmware := u.wrong(b.firmware)
	since := labtest.LastEvent(t, u.Scenario)
	labtest.Must(t, u.Server.WantFirmware(t.Context(), u.Sensor.ID, firmware.ID))
	u.poll()
	u.eventually("an event says why", func() error { return u.heard(since, "Update to "+b.firmware.Revision+" failed", b.says) })
	u.reports("running as before", func(s admin.Status) bool { return s.Status == 1 && s.SWVersion == revision })
	if after := u.containers(); fmt.Sprint(after) != fmt.Sprint(containers) {
		t.Errorf("containers are %v, were %v", after, containers)
	}
	for name, text := range u.files() {
		if text != before[name] {
			t.Errorf("%s is\n%s", name, text)
		}
	}
	honeypotAnswers(t, u.Scenario, scenario.HoneypotPort)

	// It is offered still, and not tried again.
	since = labtest.LastEvent(t, u.Scenario)
	u.poll()
	out, err := u.Exec(t.Context(), "manager", "update", "status")
	labtest.Must(t, err)
	if !strings.Contains(out, "is not tried again") {
		t.Errorf("update status: %s", out)
	}
	if err := u.heard(since, "Update to "+b.firmware.Revision+" failed", ""); err == nil {
		t.Error("it was tried again")
	}
	labtest.Must(t, u.Server.WantFirmware(t.Context(), u.Sensor.ID, 0))
}

// wrong offers a firmware that the server itself would not take: its file is put
// in the place of one that it took.
func (u *updating) wrong(f scenario.Firmware) admin.Firmware {
	u.t.Helper()
	path, err := u.Build(u.t.Context(), f)
	labtest.Must(u.t, err)
	taken, err := u.Server.UploadFirmware(u.t.Context(), placeholder(u.t, f.Revision))
	labtest.Must(u.t, err)
	labtest.Must(u.t, os.Rename(path, filepath.Join(u.Lab.Dir(), "server", "firmware", fmt.Sprintf("%d.tar.gz", taken.ID))))
	return taken
}

// placeholder is all that the server looks at.
func placeholder(t *testing.T, revision string) string {
	t.Helper()
	dir := t.TempDir()
	metadata := "<firmware><name>lab</name><platform>docker_x86</platform><version>" + revision +
		"</version><description>lab</description><changelog>none</changelog></firmware>"
	for name, text := range map[string]string{"metadata.xml": metadata, "firmware.img": ""} {
		labtest.Must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	path := filepath.Join(dir, "firmware.tar.gz")
	out, err := exec.CommandContext(t.Context(), "tar", "-czf", path, "-C", dir, "metadata.xml", "firmware.img").CombinedOutput()
	if err != nil {
		t.Fatalf("pack placeholder: %v: %s", err, out)
	}
	return path
}

// heard looks for an event.
func (u *updating) heard(since int64, summary, says string) error {
	u.t.Helper()
	events, err := u.Server.Events(u.t.Context(), since, 0)
	if err != nil {
		return err
	}
	for _, e := range events {
		if e.Summary != summary {
			continue
		}
		text := ""
		for _, d := range e.Details {
			text += d.Data
		}
		if !strings.Contains(text, says) {
			return fmt.Errorf("the event says %q, want %q in it", text, says)
		}
		u.t.Logf("event: %s: %s", summary, text)
		return nil
	}
	return fmt.Errorf("no event %q", summary)
}

// version is what the sensor says to the server.
func (u *updating) version() string {
	u.t.Helper()
	sensor, err := u.Server.Sensor(u.t.Context(), u.Sensor.ID)
	labtest.Must(u.t, err)
	var status admin.Status
	if sensor.Status != nil {
		status = *sensor.Status
	}
	if status.SWVersion == "" {
		text, _ := json.Marshal(sensor)
		u.t.Fatalf("the sensor has no version: %s", text)
	}
	return status.SWVersion
}

package vm

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"honeysens.org/dockersensor/packaging/lab/admin"
	"honeysens.org/dockersensor/packaging/lab/labtest"
	"honeysens.org/dockersensor/packaging/lab/scenario"
	"honeysens.org/dockersensor/shared/nettest"
)

// updateWithin is how long an emulated machine may take from one phase of an update
// to another.
const updateWithin = 20 * time.Minute

// cut is a moment at which the power goes: a phase of the update, and what else has
// to be so on the machine.
type cut struct{ phase, and string }

// cuts are in the order of the phases. In the second one the engine has just said
// that it has the image: what it does not have on the disk then is lost.
func cuts() []cut {
	return []cut{
		{"offered", "true"},
		{"verified", "grep -q lab-b /var/lib/docker/image/overlay2/repositories.json"},
		{"started", "true"},
		{"trial", "true"},
		{"committed", "true"},
	}
}

// TestVMUpdate cuts the power at five moments of an update. It ends all the same,
// and one sensor serves, alone.
func TestVMUpdate(t *testing.T) {
	nettest.Need(t, "qemu-system-x86_64", "ssh", "ip")
	s := labtest.New(t, "vmu")
	labtest.Must(t, s.Up(t.Context()))
	s.Port = 2323
	labtest.Must(t, s.Assign(t.Context()))
	s.TargetV4, s.TargetV6 = Address, AddressV6
	firmware := offer(t, s, "lab-b")
	machine := plug(t, s)
	labtest.Must(t, machine.Boot(t.Context()))
	t.Cleanup(func() { diagnose(t, machine) })
	deploy(t, s, machine)
	ready(t, s, time.Time{})

	labtest.Must(t, s.Server.WantFirmware(t.Context(), s.Sensor.ID, firmware))
	_, err := machine.Run(t.Context(), "cd /opt/sensor && HOST_PWD=$(pwd) docker compose exec -T sensor manager poll")
	labtest.Must(t, err)
	for _, c := range cuts() {
		reached := reaches(t, machine, c)
		labtest.Must(t, machine.PowerCut())
		t.Logf("%s the power is cut: want %s, met %s", time.Now().Format(time.TimeOnly), c.phase, reached)
		if reached != c.phase {
			t.Errorf("the update was %q when the power was cut, want %q", reached, c.phase)
		}
		labtest.Must(t, machine.Boot(t.Context()))
		t.Log(time.Now().Format(time.TimeOnly), "the machine is up again")
	}
	serves := settles(t, s, machine)
	ready(t, s, machine.Booted())
	labtest.Attack(t, s)
	t.Logf("%s revision %s serves", time.Now().Format(time.TimeOnly), serves)
	if serves != "lab-b" {
		t.Errorf("revision %s serves, want lab-b", serves)
	}
}

// offer builds a firmware with the engine of the lab, which does nothing else
// here, and uploads it.
func offer(t *testing.T, s *scenario.Scenario, revision string) int {
	t.Helper()
	archive := labtest.Built(t, "HoneySens-Firmware-dockerx86-*.tar.gz")
	unpack := exec.CommandContext(t.Context(), "tar", "-xzOf", archive, "firmware.img")
	load := s.Lab.Docker(t.Context(), "load")
	var err error
	load.Stdin, err = unpack.StdoutPipe()
	labtest.Must(t, err)
	labtest.Must(t, unpack.Start())
	labtest.Must(t, load.Run())
	labtest.Must(t, unpack.Wait())
	path, err := s.Build(t.Context(), scenario.Firmware{Revision: revision, Manager: "honeysens.org/dockersensor/manager"})
	labtest.Must(t, err)
	firmware, err := s.Server.UploadFirmware(t.Context(), path)
	labtest.Must(t, err)
	labtest.Must(t, os.Remove(path))
	return firmware.ID
}

// journalFile is the journal of the update on the machine.
const journalFile = "/opt/sensor/state/update/journal.json"

// reaches waits until the moment of a cut, or until it has passed, and returns the
// phase that is reached, "" after the update. The machine looks itself: a connection
// takes it seconds.
func reaches(t *testing.T, machine *VM, c cut) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), updateWithin)
	defer cancel()
	_, later, _ := strings.Cut("|offered|downloaded|verified|loaded|started|trial|committed|rolled back|", "|"+c.phase+"|")
	ended := "test ! -e " + journalFile
	if c.phase == "offered" {
		ended = "false"
	}
	out, err := machine.Run(ctx, fmt.Sprintf(`is() { grep -E -q "\"phase\": \"($1)\"" %[1]s 2>/dev/null; }
until { is %[2]s && %[3]s; } || is '%[4]s' || %[5]s; do sleep 0.05; done
sed -n 's/^ *"phase": "\(.*\)".*/\1/p' %[1]s 2>/dev/null || true`, journalFile, c.phase, c.and, strings.Trim(later, "|"), ended))
	if err != nil {
		t.Fatalf("the update does not come to %q: %v", c.phase, err)
	}
	return strings.TrimSpace(out)
}

// settles waits until the update has ended, and returns the revision of the only
// sensor that is left, which the operator's files name.
func settles(t *testing.T, s *scenario.Scenario, machine *VM) string {
	t.Helper()
	labtest.Must(t, machine.Wait(t.Context(), "test ! -e "+journalFile+" && test $(docker ps --all --quiet | wc -l) = 1", updateWithin))
	out, err := machine.Run(t.Context(), `docker ps --format '{{.Image}} {{.Label "com.docker.compose.project"}}' && cd /opt/sensor && sed -n 's/^ *image: //p' docker-compose.yml && sed -n s/^COMPOSE_PROJECT_NAME=//p .env && ls -A state/update`)
	labtest.Must(t, err)
	fields := strings.Fields(out)
	t.Logf("left on the machine: %s", strings.Join(fields, " "))
	if len(fields) < 4 || fields[0] != fields[2] || fields[1] != fields[3] {
		t.Fatalf("the container and the operator's files differ: %q", out)
	}
	_, revision, _ := strings.Cut(fields[0], ":")
	ctx, cancel := context.WithTimeout(t.Context(), readyWithin)
	defer cancel()
	_, err = s.Server.WaitSensor(ctx, s.Sensor.ID, func(sensor admin.Sensor) bool {
		return sensor.Status != nil && sensor.Status.Status == 1 && sensor.Status.SWVersion == revision
	})
	labtest.Must(t, err)
	return revision
}

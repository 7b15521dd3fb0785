// Package e2e tests the deployed sensor: real engine, real containers, real
// packets, by the guide.
package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"honeysens.org/dockersensor/packaging/lab/admin"
	"honeysens.org/dockersensor/packaging/lab/host"
	"honeysens.org/dockersensor/packaging/lab/labtest"
	"honeysens.org/dockersensor/packaging/lab/scenario"
	"honeysens.org/dockersensor/shared/event"
)

// readyWithin is how long a sensor may take from its start to its services.
const readyWithin = 4 * time.Minute

// TestE2E goes through the life of one sensor, since putting up a lab takes a
// while.
func TestE2E(t *testing.T) {
	machineIsUntouched(t)
	s := labtest.New(t, "e2e")
	labtest.Must(t, s.Up(t.Context()))
	labtest.Must(t, s.Assign(t.Context()))
	settle(t, s)
	before := look(t, s)
	labtest.Must(t, s.Deploy(t.Context(), nil))
	t.Run("starts", func(t *testing.T) {
		labtest.Diagnose(t, s)
		ready(t, s, time.Time{})
	})

	step := func(name string, test func(*testing.T, *scenario.Scenario)) {
		t.Run(name, func(t *testing.T) {
			labtest.Diagnose(t, s)
			test(t, s)
		})
	}
	step("attacks arrive", labtest.Attack)
	step("a honeypot that goes elsewhere is stopped and reported", stoppedHoneypot)
	step("processes have what they need", privileges)
	t.Run("host is unchanged", func(t *testing.T) {
		hostUnchanged(t, s, before)
		passageIsCommented(t, s)
	})
	step("host keeps its ports", protectedListeners)
	step("acknowledged events survive a kill", killManager)
	step("bad input is told and harms nothing", badInput)
	step("raw network access", rawNetworkAccess)
	step("old compose file", oldComposeFile)
	t.Run("cleanup after a kill", func(t *testing.T) { cleanupAfterKill(t, s, before) })
	step("interface that is not there", missingInterface)
	t.Run("nothing is left behind", func(t *testing.T) {
		_, err := s.Compose(t.Context(), "down", "--volumes")
		labtest.Must(t, err)
		hostIsAsBefore(t, s, before)
	})
}

// cleanupAfterKill kills all of the sensor at once and cleans up from another
// container, twice.
func cleanupAfterKill(t *testing.T, s *scenario.Scenario, before picture) {
	run := func(args ...string) {
		t.Helper()
		if out, err := s.Lab.Docker(t.Context(), args...).CombinedOutput(); err != nil {
			t.Fatalf("docker %v: %v: %s", args, err, out)
		}
	}
	run("kill", "--signal", "KILL", sensorID(t, s))
	if len(added(look(t, s), before)) == 0 {
		t.Error("a killed sensor left nothing behind: there is nothing to clean up")
	}
	for range 2 {
		run("run", "--rm", "--privileged", "--network", "host", "--entrypoint", "nethelper", "honeysens/sensorx86:"+s.Revision(), "cleanup", "--all")
		hostIsAsBefore(t, s, before)
	}
}

// stoppedHoneypot tries from within a honeypot to reach others, as somebody would
// who has taken it over.
func stoppedHoneypot(t *testing.T, s *scenario.Scenario) {
	since := labtest.LastEvent(t, s)
	_, err := s.Exec(t.Context(), "sh", "-c", `for p in /proc/[0-9]*; do
		[ "$(cat $p/comm)" != python3 ] || nsenter --net=$p/ns/net timeout 2 bash -c '</dev/tcp/`+host.AttackerV4+`/22' || true
	done`)
	labtest.Must(t, err)
	labtest.Arrives(t, s, since, "what a honeypot tried", func(e admin.Event) bool {
		return strings.HasPrefix(e.Summary, fmt.Sprintf("Honeypot %d was stopped: ", s.Honeypot.ID))
	})
	eventually(t, "the state counts it", func() error {
		out, err := s.Exec(t.Context(), "manager", "status")
		if err == nil && !strings.Contains(out, "packets to where it may not go") {
			err = fmt.Errorf("status: %s", out)
		}
		return err
	})
}

func ready(t *testing.T, s *scenario.Scenario, after time.Time) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), readyWithin)
	defer cancel()
	labtest.Must(t, s.Ready(ctx, after, s.Recon.ID, s.Honeypot.ID))
}

// privileges looks at the processes of the container as the kernel sees them.
func privileges(t *testing.T, s *scenario.Scenario) {
	manager := status(t, s, "manager")
	for field, want := range map[string]string{
		"Uid": "10001 10001 10001 10001", "CapEff": "0000000000000000", "CapPrm": "0000000000000000",
		"CapBnd": "0000000000000000", "NoNewPrivs": "1", "Seccomp": "2",
	} {
		if got := manager[field]; got != want {
			t.Errorf("manager: %s is %s, want %s", field, got, want)
		}
	}
	helper := status(t, s, "nethelper")
	// NET_ADMIN (12), NET_RAW (13), SYS_PTRACE (19), SYS_ADMIN (21).
	const want = "0000000000283000"
	if helper["CapEff"] != want || helper["CapBnd"] != want || helper["NoNewPrivs"] != "1" {
		t.Errorf("nethelper: CapEff %s, CapBnd %s, NoNewPrivs %s", helper["CapEff"], helper["CapBnd"], helper["NoNewPrivs"])
	}
	commandLine, err := s.Exec(t.Context(), "sh", "-c", `tr '\0' ' ' </proc/$(pidof dockerd)/cmdline`)
	labtest.Must(t, err)
	for _, want := range []string{"--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--default-runtime=bounded"} {
		if !strings.Contains(commandLine, want) {
			t.Errorf("nested engine runs without %s: %s", want, commandLine)
		}
	}
}

// status returns the fields of /proc/<pid>/status of a program in the container.
func status(t *testing.T, s *scenario.Scenario, program string) map[string]string {
	t.Helper()
	out, err := s.Exec(t.Context(), "sh", "-c", "cat /proc/$(pidof "+program+")/status")
	labtest.Must(t, err)
	fields := map[string]string{}
	for line := range strings.Lines(out) {
		name, value, _ := strings.Cut(line, ":")
		fields[name] = strings.Join(strings.Fields(value), " ")
	}
	return fields
}

// protectedListeners has programs of the host listen where the catch-all and an
// assigned port would be: with HOST_PORTS=protect the host keeps both.
func protectedListeners(t *testing.T, s *scenario.Scenario) {
	listen(t, s, 7777)
	listen(t, s, scenario.HoneypotPort)
	hostAnswers(t, s, 7777)
	hostAnswers(t, s, scenario.HoneypotPort)
}

// killManager has an event acknowledged that the server does not take yet.
func killManager(t *testing.T, s *scenario.Scenario) {
	labtest.Must(t, s.Server.AddFault(t.Context(), admin.Fault{Path: admin.PathEvents, Kind: admin.FaultUnavailable}))
	since := labtest.LastEvent(t, s)
	honeypotAnswers(t, s, scenario.HoneypotPort)
	eventually(t, "an event waits in the spool", func() error {
		if waiting := sensorStatus(t, s).Events.Waiting; waiting == 0 {
			return fmt.Errorf("%d events wait", waiting)
		}
		return nil
	})
	_, err := s.Exec(t.Context(), "sh", "-c", "kill -9 $(pidof manager)")
	labtest.Must(t, err)
	labtest.Must(t, s.Server.ClearFaults(t.Context()))
	labtest.Arrives(t, s, since, "event from before the kill", func(e admin.Event) bool {
		return e.Source == host.AttackerV4 && e.Service == event.ServiceGeneric
	})
}

// rawNetworkAccess gives the honeypot the sensor's own network.
func rawNetworkAccess(t *testing.T, s *scenario.Scenario) {
	t.Cleanup(func() {
		if err := s.Assign(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("assign as before: %v", err)
		}
	})
	raw := true
	labtest.Must(t, s.Server.Assign(t.Context(), s.Sensor.ID, admin.Assignment{Service: s.Honeypot.ID, Raw: &raw}))
	_, err := s.Exec(t.Context(), "manager", "poll")
	labtest.Must(t, err)
	eventually(t, "honeypot in the sensor's network", func() error {
		out, err := s.Exec(t.Context(), "sh", "-c", `for p in /proc/[0-9]*; do [ "$(cat $p/comm)" != python3 ] || readlink $p/ns/net; done; readlink /proc/1/ns/net`)
		if err != nil {
			return err
		}
		if namespaces := strings.Fields(out); len(namespaces) != 2 || namespaces[0] != namespaces[1] {
			return fmt.Errorf("namespaces of honeypot and sensor are %v", namespaces)
		}
		return nil
	})
}

// oldComposeFile starts the image from the compose file of the sensor before,
// which knows no HOST_PORTS: an assigned port then wins over a listener on all
// addresses, the catch-all still does not.
func oldComposeFile(t *testing.T, s *scenario.Scenario) {
	old := filepath.Join(labtest.Root(t), "packaging", "deploy", "testdata", "docker-compose.old.yml")
	start := time.Now()
	labtest.Must(t, s.DeployWith(t.Context(), old, map[string]string{"@REVISION@": s.Revision()}))
	ready(t, s, start)
	listen(t, s, 7777)
	listen(t, s, scenario.HoneypotPort)
	hostAnswers(t, s, 7777)
	honeypotAnswers(t, s, scenario.HoneypotPort)
}

// missingInterface starts a sensor with a wrong IFACE. It says so and reports to
// the server all the same.
func missingInterface(t *testing.T, s *scenario.Scenario) {
	start := time.Now()
	labtest.Must(t, s.Deploy(t.Context(), map[string]string{"IFACE=eth0": "IFACE=eth7"}))
	ctx, cancel := context.WithTimeout(t.Context(), readyWithin)
	defer cancel()
	_, err := s.Server.WaitSensor(ctx, s.Sensor.ID, func(sensor admin.Sensor) bool {
		return sensor.Status != nil && sensor.Status.Received.After(start)
	})
	labtest.Must(t, err)
	eventually(t, "the status names the interface", func() error {
		network := sensorStatus(t, s).Network
		if text := network.Error + network.Observed.Interface.Problem; !strings.Contains(text, "eth7") || !strings.Contains(text, "eth0") {
			return fmt.Errorf("network says %q, want it to name eth7 and what IFACE could be", text)
		}
		return nil
	})
}

// sensor is what the tests read of `manager status --json`.
type sensor struct {
	Server struct {
		Error      string `json:"error"`
		ErrorClass string `json:"error_class"`
	} `json:"server"`
	Network struct {
		Error    string `json:"error"`
		Observed struct {
			Interface struct {
				Problem string `json:"problem"`
			} `json:"interface"`
		} `json:"observed"`
	} `json:"network"`
	Services []struct {
		ID     string `json:"id"`
		State  string `json:"state"`
		Reason string `json:"reason"`
	} `json:"services"`
	Events struct {
		Waiting int    `json:"waiting"`
		Lost    uint64 `json:"lost"`
	} `json:"events"`
}

func sensorStatus(t *testing.T, s *scenario.Scenario) sensor {
	t.Helper()
	var status sensor
	eventually(t, "manager status", func() error {
		out, err := s.Exec(t.Context(), "manager", "status", "--json")
		if err != nil {
			return err
		}
		return json.Unmarshal([]byte(out), &status)
	})
	return status
}

// eventually repeats a check until it holds.
func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	within(t, labtest.Arrival, what, check)
}

// within is eventually with another limit.
func within(t *testing.T, limit time.Duration, what string, check func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, err)
		}
	}
}

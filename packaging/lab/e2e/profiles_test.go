package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"honeysens.org/dockersensor/packaging/lab/host"
	"honeysens.org/dockersensor/packaging/lab/labtest"
	"honeysens.org/dockersensor/packaging/lab/scenario"
)

// TestE2EProfiles deploys the sensor in the ways besides host networking in one
// container, which is TestE2E: up, attack, event, down, and the host is as
// before.
func TestE2EProfiles(t *testing.T) {
	machineIsUntouched(t)
	s := labtest.New(t, "prof")
	// The rules for bridge networking leave port 22 to the host.
	s.Port = 2323
	labtest.Must(t, s.Up(t.Context()))
	labtest.Must(t, s.Assign(t.Context()))
	// The engine's bridge gets addresses with the first container, and keeps them.
	labtest.Must(t, docker(t, s, "load", "--input", unpackedImage(t)))
	labtest.Must(t, docker(t, s, "run", "--rm", "--network", "bridge", "--entrypoint", "true", "honeysens/sensorx86:"+s.Revision()))
	settle(t, s)
	before := look(t, s)
	t.Run("bridge", func(t *testing.T) {
		labtest.Diagnose(t, s)
		start := time.Now()
		labtest.Must(t, s.DeployProfile(t.Context(), "docker-compose.yml:docker-compose.bridge.yml"))
		// The engine's own rules for a running container are there before ours.
		settle(t, s)
		running := look(t, s)
		unlead := lead(t, s)
		soon(t, s, start)
		attackV4(t, s)
		unlead()
		for _, line := range added(look(t, s), running) {
			t.Errorf("the sensor changed the host: %s", line)
		}
		down(t, s, before)
	})
	t.Run("split", func(t *testing.T) {
		labtest.Diagnose(t, s)
		start := time.Now()
		labtest.Must(t, s.DeployProfile(t.Context(), "docker-compose.split.yml"))
		soon(t, s, start)
		labtest.Attack(t, s)
		whatEachMay(t, s)
		engineRestarts(t, s)
		down(t, s, before)
	})
}

// soon is ready without the wait for the next regular poll.
func soon(t *testing.T, s *scenario.Scenario, after time.Time) {
	t.Helper()
	eventually(t, "services run and the server was told", func() error {
		out, err := s.Exec(t.Context(), "manager", "status", "--json")
		if err != nil {
			return err
		}
		var status sensor
		if err := json.Unmarshal([]byte(out), &status); err != nil {
			return err
		}
		for _, service := range status.Services {
			if service.State != "running" {
				return fmt.Errorf("service %s is %s: %s", service.ID, service.State, service.Reason)
			}
		}
		if len(status.Services) < 2 {
			return fmt.Errorf("%d services", len(status.Services))
		}
		_, err = s.Exec(t.Context(), "manager", "poll")
		return err
	})
	ready(t, s, after)
}

// down ends the sensor by the guide's command.
func down(t *testing.T, s *scenario.Scenario, before picture) {
	t.Helper()
	_, err := s.Compose(t.Context(), "down", "--volumes")
	labtest.Must(t, err)
	// The kernel tells with a delay that a bridge has lost its last link.
	eventually(t, "the host is as before", func() error {
		now := look(t, s)
		if left, gone := added(now, before), added(before, now); len(left)+len(gone) > 0 {
			return fmt.Errorf("left behind: %q, taken away: %q", left, gone)
		}
		return nil
	})
	labtest.Must(t, os.RemoveAll(s.Dir))
}

const redirectTable = "honeysens-redirect"

// lead enters the rules that the sensor prints, those for nft and the one that
// Docker needs, and returns what removes them. Where Docker has no iptables its
// option for that was set before.
func lead(t *testing.T, s *scenario.Scenario) (unlead func()) {
	t.Helper()
	rules, err := s.Exec(t.Context(), "manager", "redirect-rules", "--host-iface", host.Interface)
	labtest.Must(t, err)
	commands, _, found := strings.Cut(rules, "# Or with nft, as input of \"nft -f -\"")
	_, table, foundOption := strings.Cut(rules, "#   \"bridge-accept-fwmark\": \""+host.AcceptMark+"\"\n")
	lines := strings.Split(strings.TrimSpace(commands), "\n")
	accept := strings.Fields(lines[len(lines)-1])
	if !found || !foundOption || accept[0] != "iptables" {
		t.Fatalf("rules for bridge networking: %s", rules)
	}
	passDocker(t, s, "-I", accept)
	nft := s.Lab.Command(t.Context(), host.Sensor, "nft", "-f", "-")
	nft.Stdin = strings.NewReader(table)
	if out, err := nft.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v: %s\n%s", err, out, table)
	}
	return func() {
		passDocker(t, s, "-D", accept)
		if out, err := s.Lab.Command(t.Context(), host.Sensor, "nft", "delete", "table", "ip", redirectTable).CombinedOutput(); err != nil {
			t.Errorf("remove the rules: %v: %s", err, out)
		}
	}
}

// passDocker enters or removes the rule for Docker's own chain, if it has that.
func passDocker(t *testing.T, s *scenario.Scenario, action string, rule []string) {
	t.Helper()
	if s.Lab.Nftables() {
		return
	}
	args := append([]string{action}, rule[2:]...)
	if out, err := s.Lab.Command(t.Context(), host.Sensor, "iptables-nft", args...).CombinedOutput(); err != nil {
		t.Errorf("iptables %v: %v: %s", args, err, out)
	}
}

// attackV4 does the attacks over IPv4, which the rules lead to the sensor, and
// wants their events with the attackers' own addresses.
func attackV4(t *testing.T, s *scenario.Scenario) {
	t.Helper()
	attacks, err := s.Attacks(t.Context())
	labtest.Must(t, err)
	since, done := labtest.LastEvent(t, s), 0
	for _, a := range attacks {
		if strings.Contains(a.Source, ":") {
			continue
		}
		done++
		if err := a.Do(t.Context()); err != nil {
			t.Errorf("%s: the attacker noticed: %v", a.Name, err)
		}
		labtest.Arrives(t, s, since, a.Name, a.Match)
	}
	if done == 0 {
		t.Error("there was no attack")
	}
}

// whatEachMay looks at the containers of the split deployment.
func whatEachMay(t *testing.T, s *scenario.Scenario) {
	t.Helper()
	type rights struct {
		User, Network        string
		Privileged, ReadOnly bool
		Add, Drop            []string
		Mounts               []string
	}
	got := map[string]rights{}
	for _, name := range []string{"engine", "nethelper", "sensor"} {
		id, err := s.Compose(t.Context(), "ps", "--quiet", name)
		labtest.Must(t, err)
		out, err := s.Lab.Docker(t.Context(), "inspect", strings.TrimSpace(id)).Output()
		labtest.Must(t, err)
		var inspected []struct {
			Config     struct{ User string }
			HostConfig struct {
				NetworkMode                string
				Privileged, ReadonlyRootfs bool
				CapAdd, CapDrop            []string
			}
			Mounts []struct{ Destination string }
		}
		labtest.Must(t, json.Unmarshal(out, &inspected))
		c := inspected[0]
		r := rights{
			User: c.Config.User, Network: c.HostConfig.NetworkMode, Privileged: c.HostConfig.Privileged,
			ReadOnly: c.HostConfig.ReadonlyRootfs, Add: c.HostConfig.CapAdd, Drop: c.HostConfig.CapDrop,
		}
		for _, mount := range c.Mounts {
			r.Mounts = append(r.Mounts, mount.Destination)
		}
		got[name] = r
	}
	want := map[string]rights{
		"engine": {Network: "none", Privileged: true, Mounts: []string{"/run/engine", "/var/lib/docker"}},
		"nethelper": {
			Network: "host", Drop: []string{"ALL"}, Add: []string{"NET_ADMIN", "NET_RAW", "SYS_ADMIN", "SYS_PTRACE"},
			Mounts: []string{"/run/sensor"},
		},
		"sensor": {
			User: "10001:10001", Network: "host", ReadOnly: true, Drop: []string{"ALL"},
			Mounts: []string{"/etc/manager", "/mnt/state", "/run/engine", "/run/sensor", "/var/lib/docker"},
		},
	}
	sorted := cmp.Transformer("sorted", func(list []string) map[string]bool {
		set := map[string]bool{}
		for _, entry := range list {
			set[strings.TrimPrefix(entry, "CAP_")] = true
		}
		return set
	})
	if diff := cmp.Diff(want, got, sorted); diff != "" {
		t.Errorf("containers (-want +got):\n%s", diff)
	}
	manager := processStatus(t, s, "manager")
	for field, want := range map[string]string{
		"Uid": "10001 10001 10001 10001", "CapEff": "0000000000000000", "CapBnd": "0000000000000000", "NoNewPrivs": "1", "Seccomp": "2",
	} {
		if manager[field] != want {
			t.Errorf("manager: %s is %s, want %s", field, manager[field], want)
		}
	}
	const few = "0000000000283000"
	if helper := processStatus(t, s, "nethelper"); helper["CapEff"] != few || helper["CapBnd"] != few || helper["NoNewPrivs"] != "1" {
		t.Errorf("nethelper: CapEff %s, CapBnd %s, NoNewPrivs %s", helper["CapEff"], helper["CapBnd"], helper["NoNewPrivs"])
	}
}

// processStatus finds the only process of the lab's sensor host that runs a
// program, and returns the fields of its /proc/PID/status.
func processStatus(t *testing.T, s *scenario.Scenario, program string) map[string]string {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/status")
	labtest.Must(t, err)
	var found []map[string]string
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil || !strings.HasPrefix(string(text), "Name:\t"+program+"\n") {
			continue
		}
		line, err := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
		cgroup, cgroupErr := os.ReadFile(filepath.Join(filepath.Dir(path), "cgroup"))
		if err != nil || cgroupErr != nil || !strings.Contains(string(cgroup), "honeysens-prof") || !strings.Contains(string(line), program) {
			continue
		}
		fields := map[string]string{}
		for line := range strings.Lines(string(text)) {
			name, value, _ := strings.Cut(line, ":")
			fields[name] = strings.Join(strings.Fields(value), " ")
		}
		found = append(found, fields)
	}
	if len(found) != 1 {
		t.Fatalf("%d processes of %s in the containers, want 1", len(found), program)
	}
	return found[0]
}

// engineRestarts kills the container of the engine: the honeypots come back, and
// attackers reach them.
func engineRestarts(t *testing.T, s *scenario.Scenario) {
	t.Helper()
	id, err := s.Compose(t.Context(), "ps", "--quiet", "engine")
	labtest.Must(t, err)
	// `docker kill` tells the engine that it is wanted: it would stay dead.
	pid, err := s.Lab.Docker(t.Context(), "inspect", "--format", "{{.State.Pid}}", strings.TrimSpace(id)).Output()
	labtest.Must(t, err)
	inEngine := fmt.Sprintf("kill -9 %s", strings.TrimSpace(string(pid)))
	start := time.Now()
	if out, err := s.Lab.Docker(t.Context(), "run", "--rm", "--privileged", "--pid", "host", "--network", "none", "--entrypoint", "sh",
		"honeysens/sensorx86:"+s.Revision(), "-c", inEngine).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", inEngine, err, out)
	}
	soon(t, s, start)
	labtest.Attack(t, s)
}

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"honeysens.org/dockersensor/packaging/lab/admin"
	"honeysens.org/dockersensor/packaging/lab/labtest"
	"honeysens.org/dockersensor/packaging/lab/scenario"
	"honeysens.org/dockersensor/packaging/services/archive"
)

// TestE2EServices has a sensor whose honeypots are tested, replaced, scanned, cut
// off, and taken over.
func TestE2EServices(t *testing.T) {
	s := labtest.New(t, "svc")
	labtest.Must(t, s.Up(t.Context()))
	labtest.Must(t, s.Assign(t.Context()))
	labtest.Must(t, s.Deploy(t.Context(), nil))
	labtest.Diagnose(t, s)
	ready(t, s, time.Time{})
	step := func(name string, test func(*testing.T, *scenario.Scenario)) {
		t.Run(name, func(t *testing.T) {
			labtest.Diagnose(t, s)
			test(t, s)
		})
	}
	step("self-test", selfTest)
	step("scan of all ports", scanOfAllPorts)
	step("change-over", changeOver)
	step("reboot without a server", rebootWithoutServer)
	step("hostile honeypots", hostileHoneypots)
}

// findings is what `manager selftest --json` prints.
type findings struct {
	Good     bool      `json:"good"`
	Findings []finding `json:"findings"`
}

type finding struct {
	Service string `json:"service"`
	IPv6    bool   `json:"ipv6"`
	Verdict string `json:"verdict"`
	Part    string `json:"part"`
	Text    string `json:"text"`
}

func runSelfTest(t *testing.T, s *scenario.Scenario) findings {
	t.Helper()
	out, err := s.Exec(t.Context(), "manager", "selftest", "--json")
	var found findings
	if decodeErr := json.Unmarshal([]byte(out), &found); decodeErr != nil {
		t.Fatalf("selftest: %v: %v\n%s", err, decodeErr, out)
	}
	if found.Good != (err == nil) {
		t.Errorf("selftest: good is %v, and the command's end %v", found.Good, err)
	}
	return found
}

// selfTest wants the whole way of both honeypots proved without an event at the
// server, and to be told where it breaks.
func selfTest(t *testing.T, s *scenario.Scenario) {
	since := labtest.LastEvent(t, s)
	found := runSelfTest(t, s)
	t.Logf("%+v", found.Findings)
	if !found.Good || len(found.Findings) != 4 || !slices.ContainsFunc(found.Findings, func(f finding) bool { return f.IPv6 && f.Verdict == "works" }) {
		t.Errorf("a sensor that works: %+v", found)
	}
	breaks := func(part, word string) {
		t.Helper()
		found := runSelfTest(t, s)
		for _, f := range found.Findings {
			if f.Part == part && strings.Contains(f.Text, word) && !found.Good {
				return
			}
		}
		t.Errorf("broken at the %s: %+v", part, found)
	}
	firewall := func(args string) {
		t.Helper()
		out, err := s.Lab.Command(t.Context(), "sensor", "nft", strings.Fields(args)...).CombinedOutput()
		if err != nil {
			t.Fatalf("nft %s: %v: %s", args, err, out)
		}
	}
	firewall("add table inet foreign")
	firewall("add chain inet foreign in { type filter hook prerouting priority -300 ; }")
	firewall("add rule inet foreign in ip saddr 198.18.0.0/15 drop")
	breaks("redirect", "firewall")
	firewall("flush chain inet foreign in")
	firewall("add rule inet foreign in ip6 saddr 2001:2::/48 drop")
	breaks("redirect", "it came from 2001:2:")
	firewall("delete table inet foreign")
	signal := func(name string) {
		t.Helper()
		_, err := s.Exec(t.Context(), "sh", "-c", "kill -"+name+" $(pidof recon)")
		labtest.Must(t, err)
	}
	signal("STOP")
	breaks("collector", "nothing was reported")
	signal("CONT")
	eventually(t, "it is good again", func() error {
		if found := runSelfTest(t, s); !found.Good {
			return fmt.Errorf("%+v", found)
		}
		return nil
	})
	events, err := s.Server.Events(t.Context(), since, 0)
	labtest.Must(t, err)
	for _, e := range events {
		if strings.HasPrefix(e.Source, "198.1") {
			t.Errorf("a test became an attack: %+v", e)
		}
	}
}

// program builds a program of the project for an image.
func program(t *testing.T, pkg string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), filepath.Base(pkg))
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", path, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v: %s", pkg, err, out)
	}
	return path
}

// offer uploads a service of one program.
func offer(t *testing.T, s *scenario.Scenario, m archive.Metadata, cfg archive.ImageConfig) admin.Service {
	t.Helper()
	m.Architecture, cfg.Architecture = "amd64", "amd64"
	image, err := archive.NewImage(cfg)
	labtest.Must(t, err)
	path := filepath.Join(t.TempDir(), "service.tar.gz")
	file, err := os.Create(path)
	labtest.Must(t, err)
	labtest.Must(t, errors.Join(archive.Write(file, m, image), file.Close()))
	service, err := s.Server.UploadService(t.Context(), path)
	labtest.Must(t, err)
	return service
}

func poll(t *testing.T, s *scenario.Scenario) {
	t.Helper()
	_, err := s.Exec(t.Context(), "manager", "poll")
	labtest.Must(t, err)
}

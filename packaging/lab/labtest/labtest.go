// Package labtest gives the tests of the deployed sensor a lab of their own and
// the things that were built for it.
package labtest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"honeysens.org/dockersensor/packaging/lab/admin"
	"honeysens.org/dockersensor/packaging/lab/host"
	"honeysens.org/dockersensor/packaging/lab/scenario"
	"honeysens.org/dockersensor/shared/nettest"
)

// Arrival is how long an attack may take to become an event: recon collects a
// source's packets until six seconds of silence, and a small machine is busy.
const Arrival = 90 * time.Second

// Root returns the directory of the project.
func Root(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
	}
	t.Fatal("the tests run outside of the project")
	return ""
}

// New returns a scenario in a lab that is not up, and removes the lab after the
// test. The prefix names the lab. LAB_FIREWALL=nftables in the environment has its
// engine use nftables.
func New(t *testing.T, prefix string) *scenario.Scenario {
	t.Helper()
	nettest.Need(t, "ip", "nft", "dockerd", "docker", "docker-registry", "nmap")
	out := filepath.Join(Root(t), "out")
	lab, err := host.New(host.Config{
		Prefix: prefix, Dir: filepath.Join(out, prefix),
		Runtime: filepath.Join(out, "bin", "runcshim"), Compose: filepath.Join(out, "bin", "docker-compose"),
		Nftables: os.Getenv("LAB_FIREWALL") == "nftables",
	})
	if err != nil {
		t.Fatal(err)
	}
	s := scenario.New(lab, scenario.Files{
		Bin:      filepath.Join(out, "bin"),
		Archive:  Built(t, "HoneySens-Firmware-dockerx86-*.tar.gz"),
		Recon:    Built(t, "recon-*.tar.gz"),
		Honeypot: Built(t, "honeypot-*.tar.gz"),
	}, func(step string) { t.Log(time.Now().Format(time.TimeOnly), step) })
	t.Cleanup(func() {
		if err := lab.Down(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("take the lab down: %v", err)
		}
	})
	return s
}

// Built returns the newest file of that pattern among what was built.
func Built(t *testing.T, pattern string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(Root(t), "out", "dist", pattern))
	if err != nil || len(files) == 0 {
		t.Fatalf("out/dist/%s is missing: `make dist services` builds it", pattern)
	}
	newest, when := "", time.Time{}
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if info.ModTime().After(when) {
			newest, when = file, info.ModTime()
		}
	}
	return newest
}

// LastEvent returns the id of the newest event.
func LastEvent(t *testing.T, s *scenario.Scenario) int64 {
	t.Helper()
	events, err := s.Server.Events(t.Context(), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	last := int64(0)
	for _, e := range events {
		last = max(last, e.ID)
	}
	return last
}

// Attack does all attacks and wants an event for each.
func Attack(t *testing.T, s *scenario.Scenario) {
	t.Helper()
	attacks, err := s.Attacks(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	since := LastEvent(t, s)
	for _, a := range attacks {
		if err := a.Do(t.Context()); err != nil {
			t.Errorf("%s: the attacker noticed: %v", a.Name, err)
		}
	}
	for _, a := range attacks {
		Arrives(t, s, since, a.Name, a.Match)
	}
}

// Arrives waits for an event that is newer than since.
func Arrives(t *testing.T, s *scenario.Scenario, since int64, name string, match func(admin.Event) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Arrival)
	defer cancel()
	if _, err := s.Server.WaitEvent(ctx, since, match); err != nil {
		t.Errorf("%s: no event: %v", name, err)
	}
}

// Must fails the test when a step failed.
func Must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Diagnose logs what the sensor and its parts have to say when the test has
// failed.
func Diagnose(t *testing.T, s *scenario.Scenario) {
	t.Helper()
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 30*time.Second)
		defer cancel()
		for _, args := range [][]string{{"exec", "-T", "sensor", "manager", "status"}, {"logs", "--tail", "100"}} {
			out, err := s.Compose(ctx, args...)
			t.Logf("%v: %v\n%s", args, err, out)
		}
		for _, name := range []string{"server", "registry"} {
			text, err := os.ReadFile(filepath.Join(s.Lab.Dir(), name+".log"))
			t.Logf("log of %s: %v\n%s", name, err, tail(text, 4000))
		}
	})
}

func tail(text []byte, most int) string {
	if len(text) > most {
		return fmt.Sprintf("(%d bytes before)\n%s", len(text)-most, text[len(text)-most:])
	}
	return string(text)
}

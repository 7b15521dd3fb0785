package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"honeysens.org/dockersensor/nethelper/internal/hosttest"
	"honeysens.org/dockersensor/shared/helperapi"
	"honeysens.org/dockersensor/shared/nettest"
)

// TestWhoStartsPrograms names all the packages in the helper that could.
func TestWhoStartsPrograms(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-json=ImportPath,Imports,Standard", ".").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	got := map[string]bool{}
	for dec := json.NewDecoder(strings.NewReader(string(out))); dec.More(); {
		var p struct {
			ImportPath string
			Imports    []string
			Standard   bool
		}
		if err := dec.Decode(&p); err != nil {
			t.Fatal(err)
		}
		for _, path := range p.Imports {
			if path == "os/exec" && !p.Standard {
				got[p.ImportPath] = true
			}
		}
	}
	want := map[string]bool{
		"github.com/containernetworking/cni/pkg/invoke":         true, // plug-ins
		"honeysens.org/dockersensor/nethelper/internal/iface":   true, // wpa_supplicant
		"honeysens.org/dockersensor/nethelper/internal/passage": true, // iptables-legacy
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

var started = regexp.MustCompile(`execve(?:at)?\((?:[^"]*)"([^"]*)"`)

// TestNetnsStartsNoOtherPrograms watches a helper through its whole life, with
// everything that it starts programs for. It runs confined, so this also shows
// that those programs live with what they may.
func TestNetnsStartsNoOtherPrograms(t *testing.T) {
	nettest.Need(t, "strace", "wpa_supplicant", "iptables-legacy", "ip6tables-legacy")
	b := newBench(t)
	for _, program := range []string{"iptables-legacy", "ip6tables-legacy"} {
		b.host.Run(program, "-P", "FORWARD", "DROP")
	}
	before := hosttest.Snapshot(b.host)
	trace := filepath.Join(b.dir, "trace")
	// The tracer is the grandchild, so that signals reach the helper.
	b.tracer = []string{"strace", "-D", "-f", "-q", "-e", "trace=execve,execveat", "-e", "signal=SIGSYS", "-o", trace}
	ssh, recon := b.twoHoneypots()
	b.start()
	want := wanted(ssh, recon)
	want.Interface.EAPOL = &helperapi.EAPOL{Method: helperapi.EAPOLMD5, Identity: "sensor", Password: "secret"}
	b.put(want)
	b.wantAttacksWork()
	until(t, "the supplicant runs", func() bool { return strings.Contains(b.stderr.String(), "supplicant started") })
	b.put(wanted(ssh))
	if err := b.end(syscall.SIGTERM); err != nil {
		t.Errorf("end: %v", err)
	}
	b.wantUnchanged(before)
	wantStarted(t, trace, "nethelper", "bridge", "host-local", "offload", "wpa_supplicant", "iptables-legacy", "ip6tables-legacy")
}

func wantStarted(t *testing.T, trace string, want ...string) {
	t.Helper()
	var lines string
	until(t, "the tracer has seen the end", func() bool {
		raw, err := os.ReadFile(trace)
		lines = string(raw)
		first, _, _ := strings.Cut(lines, " ")
		// Short pids are padded.
		ended := regexp.MustCompile(`(?m)^` + first + ` +\+\+\+ exited`)
		return err == nil && ended.MatchString(lines)
	})
	if strings.Contains(lines, "SIGSYS") {
		t.Errorf("a process used what it may not:\n%s", lines)
	}
	got, all := map[string]bool{}, map[string]bool{}
	for _, match := range started.FindAllStringSubmatch(lines, -1) {
		got[filepath.Base(match[1])] = true
	}
	for _, name := range want {
		all[name] = true
	}
	if diff := cmp.Diff(all, got); diff != "" {
		t.Errorf("programs started (-want +got):\n%s\n%s", diff, lines)
	}
}

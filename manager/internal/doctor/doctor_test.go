package doctor

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"honeysens.org/dockersensor/shared/helperapi"
	"honeysens.org/dockersensor/shared/unixsock"
	"honeysens.org/dockersensor/shared/version"
)

// want is a finding: check, level, and a part of text or advice.
type want struct {
	check string
	level Level
	text  string
}

// expect tells which findings are missing, and which of their checks were not
// expected.
func expect(t *testing.T, found []Finding, wants ...want) {
	t.Helper()
	for _, w := range wants {
		seen := false
		for _, f := range found {
			seen = seen || (f.Check == w.check && f.Level == w.level && strings.Contains(f.Text+" -> "+f.Advice, w.text))
		}
		if !seen {
			t.Errorf("no %s of %s with %q in %+v", w.level, w.check, w.text, found)
		}
	}
	if len(wants) != len(found) {
		t.Errorf("%d findings, want %d: %+v", len(found), len(wants), found)
	}
}

// write makes files below a directory.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// serveUnix answers at a socket until the test ends.
func serveUnix(t *testing.T, handler http.Handler) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "test.sock")
	listener, err := unixsock.Listen(path, 0o660)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler}
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		<-done
	})
	return path
}

// manager answers with a state, or an error.
type manager struct {
	running *Running
	err     error
}

func (m manager) Ask(context.Context) (*Running, error) { return m.running, m.err }

// helper answers with a state, or an error.
type helper struct {
	version  string
	observed helperapi.Observed
	err      error
}

func (h helper) Health(context.Context) (helperapi.Health, error) {
	return helperapi.Health{Version: h.version}, h.err
}

func (h helper) Observe(context.Context) (helperapi.Observed, error) { return h.observed, h.err }

// alone returns a doctor for what needs neither manager nor helper.
func alone(cfg Config) *Doctor { return New(cfg, nil, nil) }

const archive = "../config/testdata/dhcp.tar.gz"

// level is that of this kernel's features.
func level() Level {
	if kernelFeatures().landlock < landlockTCP {
		return Note
	}
	return OK
}

func TestRunningSensor(t *testing.T) {
	healthy := manager{running: &Running{
		Version: "1.0", Interface: "no-such",
		Server: Server{Address: "192.0.2.9:443", LastPoll: time.Now(), Route: "direct"},
	}}
	deploy := write(t, map[string]string{"docker-compose.yml": "", ".env": ""})
	engine := serveUnix(t, engineOf("28.5.2", "overlay2", "bounded"))
	report := New(Config{
		Archive: archive, StateDir: t.TempDir(), DeployDir: deploy, Root: goodRoot(t), DockerSocket: engine, HostDockerSocket: engine,
	}, healthy, helper{version: version.Revision, observed: helperapi.Observed{Applied: true}}).Examine(t.Context())
	// The interface is that of the manager, and a name that no host has.
	if report.Problems != 1 || report.Err() == nil {
		t.Errorf("%d problems, error %v: %+v", report.Problems, report.Err(), report.Findings)
	}
	for _, f := range report.Findings {
		if f.Level == Problem && (f.Check != "interface" || !strings.Contains(f.Text, "no-such") || f.Advice == "") {
			t.Errorf("finding: %+v", f)
		}
	}
}

func TestNothingRuns(t *testing.T) {
	nowhere := filepath.Join(t.TempDir(), "none")
	report := New(Config{
		Archive: nowhere, Interface: "lo", StateDir: nowhere, DeployDir: nowhere, Root: goodRoot(t), DockerSocket: nowhere, HostDockerSocket: nowhere,
	}, manager{err: errors.New("no manager runs")}, helper{err: errors.New("nethelper is not running")}).Examine(t.Context())
	for _, f := range report.Findings {
		if f.Level == Problem && f.Advice == "" {
			t.Errorf("no advice: %+v", f)
		}
	}
	expect(t, report.Findings,
		want{"manager", Problem, "no manager runs"}, want{"configuration", Problem, "does not exist"},
		want{"kernel", OK, ""}, want{"kernel features", level(), ""}, want{"memory", OK, ""}, want{"control groups", OK, "v2"},
		want{"state directory", Problem, "no such file"}, want{"interface", Problem, "this host alone"},
		want{"helper", Problem, "not running"}, want{"nested engine", Problem, "dockerd"},
		want{"host's engine", Note, "by hand"}, want{"deployment", Note, "HOST_PWD"}, want{"server", Skipped, ""})
}

func TestBeforeTheFirstStart(t *testing.T) {
	dir := t.TempDir()
	report := alone(Config{Before: true, Archive: dir, Interface: "lo", StateDir: filepath.Join(dir, "state"), Root: goodRoot(t), HostDockerSocket: dir}).Examine(t.Context())
	expect(t, report.Findings,
		want{"manager", Skipped, "not started"}, want{"configuration", Problem, "conf/"},
		want{"kernel", OK, ""}, want{"kernel features", level(), ""}, want{"memory", OK, ""}, want{"control groups", OK, ""},
		want{"state directory", OK, dir + " can be written"}, want{"interface", Problem, ""}, want{"ports", Note, "22/tcp, 8080/tcp, 161/udp"},
		want{"helper", Skipped, ""}, want{"firewall", Skipped, "when it runs"}, want{"nested engine", Skipped, ""}, want{"host's engine", Note, "is not a socket"},
		want{"deployment", Note, ""}, want{"server", Skipped, ""})
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, error %v", left, err)
	}
}

func TestReportForAPerson(t *testing.T) {
	report := Report{Findings: []Finding{
		{"kernel", OK, "6.12", ""}, {"server", Problem, "it says \x1b[31mred", "look into its log"},
	}, Problems: 1}
	var out strings.Builder
	if err := report.WriteText(&out); err != nil {
		t.Fatal(err)
	}
	const text = "CHECK   RESULT   FINDING\nkernel  ok       6.12\nserver  problem  it says ?[31mred\n                 -> look into its log\n"
	if out.String() != text {
		t.Errorf("printed:\n%s", out.String())
	}
}

func TestErr(t *testing.T) {
	for problems, want := range map[int]string{0: "", 1: "one problem was found", 3: "3 problems were found"} {
		err := (&Report{Problems: problems}).Err()
		if (err == nil) != (want == "") || (err != nil && err.Error() != want) {
			t.Errorf("%d problems: error is %v", problems, err)
		}
	}
}

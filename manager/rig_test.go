package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"honeysens.org/dockersensor/manager/internal/control"
	"honeysens.org/dockersensor/packaging/lab/admin"
	"honeysens.org/dockersensor/shared/event"
	"honeysens.org/dockersensor/shared/zmtp"
)

// patience ends a test that hangs, on a machine that is busy.
const patience = 2 * time.Minute

// rig is a manager as a program of its own, without privileges' use, beside the
// development server. Engine and helper are not there: the manager says so, and
// takes events all the same.
type rig struct {
	t      testing.TB
	dir    string
	sensor admin.Sensor
	server *admin.Client
	// collector is where the manager takes events, port where the server listens.
	collector, port string
	flags           []string
	// listen are further addresses of the server, serverFlags further flags.
	listen, serverFlags []string
	// tracer is put before the manager's command line.
	tracer  []string
	manager *process
	serving *process
}

// process is a program with what it wrote.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
	log  output
	// err is valid when done is closed.
	err error
}

// output is what a program writes, to be read while it still does.
type output struct {
	mu   sync.Mutex
	text strings.Builder
}

// Write never fails.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

// String returns what was written so far.
func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// programs builds manager and server and returns their directory.
func programs(t testing.TB) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join("..", "out", "test", "manager"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	// Tests of several packages run at once.
	lock, err := os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", dir+"/",
		"honeysens.org/dockersensor/manager", "honeysens.org/dockersensor/packaging/lab/server")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return dir
}

// launch starts a program that ends with the test.
func launch(t testing.TB, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(args[0], args[1:]...), done: make(chan struct{})}
	p.cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.end(unix.SIGKILL)
		if t.Failed() {
			t.Logf("%s:\n%.20000s", filepath.Base(args[0]), p.log.String())
		}
	})
	return p
}

// end signals the program and waits for its end.
func (p *process) end(signal syscall.Signal) {
	_ = p.cmd.Process.Signal(signal)
	<-p.done
}

// newRig starts the server and registers a sensor; the manager is not running.
func newRig(t testing.TB, flags ...string) *rig {
	t.Helper()
	// A socket's path must be short.
	dir, err := os.MkdirTemp("", "rig") //nolint:usetesting // t.TempDir is named after the test
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	r := &rig{t: t, dir: dir, port: freePort(t), collector: freePort(t), flags: flags}
	r.server = admin.New("unix:" + filepath.Join(dir, "admin.sock"))
	r.serve()
	if r.sensor, err = r.server.Register(t.Context(), admin.NewSensor{Name: "rig"}); err != nil {
		t.Fatal(err)
	}
	archive, err := r.server.Archive(t.Context(), r.sensor.ID)
	if err != nil {
		t.Fatal(err)
	}
	for _, sub := range []string{"conf", "state", "deploy", "run"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o750); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(r.archive(), archive, 0o600); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) archive() string {
	return filepath.Join(r.dir, "conf", fmt.Sprintf("s%d.tar.gz", r.sensor.ID))
}

// serve starts the server with what it knew before.
func (r *rig) serve() {
	r.t.Helper()
	args := []string{filepath.Join(programs(r.t), "server"), "--data", filepath.Join(r.dir, "server"), "--name", "hs.lab",
		"--listen", r.port, "--endpoint", r.port, "--admin", "unix:" + filepath.Join(r.dir, "admin.sock"), "--log-level", "warn"}
	for _, address := range r.listen {
		args = append(args, "--listen", address)
	}
	r.serving = launch(r.t, append(args, r.serverFlags...)...)
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	if err := r.server.Wait(ctx); err != nil {
		r.t.Fatal(err)
	}
}

func freePort(t testing.TB) string {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().String()
}

// run starts the manager, without waiting for anything.
func (r *rig) run() {
	r.t.Helper()
	r.manager = launch(r.t, slices.Concat(r.tracer, []string{filepath.Join(programs(r.t), "manager"), "run",
		"--config", filepath.Join(r.dir, "conf"), "--state-dir", filepath.Join(r.dir, "state"), "--deploy-dir", filepath.Join(r.dir, "deploy"),
		"--helper-socket", filepath.Join(r.dir, "no-helper.sock"), "--docker-socket", filepath.Join(r.dir, "no-engine.sock"),
		"--control-socket", r.socket(), "--collector-listen", r.collector, "--pause-program", "/nonexistent"}, r.flags)...)
}

func (r *rig) socket() string { return filepath.Join(r.dir, "run", "control.sock") }

// start starts the manager and waits for its first poll.
func (r *rig) start() {
	r.t.Helper()
	r.run()
	r.until("the server is polled", func() error {
		if s := r.status(); s.Server.LastPoll.IsZero() {
			return fmt.Errorf("not yet: %s", s.Server.Error)
		}
		return nil
	})
}

// status is empty while the manager does not answer.
func (r *rig) status() control.Status {
	status, err := control.NewClient(r.socket()).Status(r.t.Context())
	if err != nil {
		return control.Status{}
	}
	return *status
}

// until repeats a check until it holds.
func (r *rig) until(what string, check func() error) {
	r.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); ; <-tick.C {
		err := check()
		if err == nil {
			return
		}
		if time.Since(began) > patience {
			r.t.Fatalf("%s: %v", what, err)
		}
	}
}

// pid is the manager's own, also behind a tracer.
func (r *rig) pid() int { return r.manager.cmd.Process.Pid }

func eventOf(summary string) []byte {
	return fmt.Appendf(nil, `{"timestamp": %d, "service": %d, "source": "192.0.2.1", "summary": %q, "details": [], "packets": []}`,
		time.Now().Unix(), event.ServiceGeneric, summary)
}

var replyOK = regexp.MustCompile(`"status": *"ok"`)

// report sends an event as a honeypot does; nil means that it was acknowledged.
func (r *rig) report(ctx context.Context, summary string) error {
	reply, err := zmtp.Request(ctx, r.collector, eventOf(summary))
	if err != nil {
		return err
	}
	if !replyOK.Match(reply) {
		return fmt.Errorf("reply %s", reply)
	}
	return nil
}

// reportAll reports events by some honeypots at once and wants all of them to be
// acknowledged.
func (r *rig) reportAll(summaries []string) {
	r.t.Helper()
	work := make(chan string)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for summary := range work {
				if err := r.report(r.t.Context(), summary); err != nil {
					r.t.Errorf("report %s: %v", summary, err)
				}
			}
		})
	}
	for _, summary := range summaries {
		work <- summary
	}
	close(work)
	wg.Wait()
}

// stored counts the events at the server by their summaries.
func (r *rig) stored() map[string]int {
	r.t.Helper()
	stored := map[string]int{}
	for since := int64(0); ; {
		events, err := r.server.Events(r.t.Context(), since, 0)
		if err != nil {
			r.t.Fatal(err)
		}
		if len(events) == 0 {
			return stored
		}
		for _, e := range events {
			stored[e.Summary]++
			since = max(since, e.ID)
		}
	}
}

// wantStored waits until the server has every event, and returns how many it
// has twice or more.
func (r *rig) wantStored(summaries []string) (duplicates int) {
	r.t.Helper()
	var stored map[string]int
	r.until("all events are at the server", func() error {
		stored = r.stored()
		missing := 0
		for _, summary := range summaries {
			if stored[summary] == 0 {
				missing++
			}
		}
		if missing > 0 {
			return fmt.Errorf("%d of %d are missing", missing, len(summaries))
		}
		return nil
	})
	for _, n := range stored {
		duplicates += n - 1
	}
	return duplicates
}

func (r *rig) fault(f admin.Fault) {
	r.t.Helper()
	if err := r.server.AddFault(r.t.Context(), f); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) clearFaults() {
	r.t.Helper()
	if err := r.server.ClearFaults(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
}

// cli runs a command of the command line against the running manager.
func (r *rig) cli(args ...string) (string, error) {
	r.t.Helper()
	at := 1
	if len(args) > 1 && args[0] == "events" && args[1] == "retry" {
		at = 2
	}
	return run(r.t, append([]string{"manager"}, slices.Insert(args, at, "--control-socket", r.socket())...)...)
}

func names(prefix string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%s %05d", prefix, i)
	}
	return out
}

// memory returns the resident memory of a process in MB, in all and its own
// without that of mapped files.
func memory(t testing.TB, pid int) (rss, anonymous float64) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var kb float64
		if n, err := fmt.Sscanf(line, "VmRSS: %f kB", &kb); n == 1 && err == nil {
			rss = kb / 1024
		}
		if n, err := fmt.Sscanf(line, "RssAnon: %f kB", &kb); n == 1 && err == nil {
			anonymous = kb / 1024
		}
	}
	if rss == 0 {
		t.Fatal(errors.New("no VmRSS"))
	}
	return rss, anonymous
}

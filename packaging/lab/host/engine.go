package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// EngineConfig says how a private Docker engine is run.
type EngineConfig struct {
	// Dir holds its images, its log and its socket.
	Dir string
	// Namespace is the path of the network namespace that it takes for its
	// host's. Empty: a new one without any network, and no containers but those
	// of builds.
	Namespace string
	// Runtime is the program runcshim.
	Runtime string
	// CgroupParent is the control group of its containers.
	CgroupParent string
	// Nftables has it write rules for nftables, and let pass what has AcceptMark.
	Nftables bool
	// EndWithParent ends the engine with the thread that starts it.
	EndWithParent bool
}

// Engine is a running Docker engine.
type Engine struct {
	cfg  EngineConfig
	done chan struct{}
	cmd  *exec.Cmd
}

// AcceptMark is what the operator of an engine with nftables sets, as the guide says.
const AcceptMark = "0x10000000/0x10000000"

// The longest path of a unix socket (unix(7)), and how long an engine may take
// until it answers: under emulation it takes most of it.
const (
	maxSocketPath = 107
	engineStart   = 2 * time.Minute
	engineStop    = 10 * time.Second
)

// script prepares the engine's own view of the machine's files: its runtime
// directory is its own, so that it finds no other engine's and its socket is
// where every engine has it. The init program, which Debian and Docker name
// differently, waits for what the engine leaves behind.
const script = `mount -t tmpfs -o mode=0755 tmpfs /run && exec "$(command -v tini || command -v docker-init)" -s -- dockerd "$@"`

// StartEngine starts an engine and waits until it answers. It goes on when the
// program ends, unless the configuration says otherwise.
func StartEngine(ctx context.Context, cfg EngineConfig) (*Engine, error) {
	e := &Engine{cfg: cfg, done: make(chan struct{})}
	if len(e.Socket()) > maxSocketPath {
		return nil, fmt.Errorf("path %s is too long for a socket: use a checkout in a shorter one", e.Socket())
	}
	if err := os.MkdirAll(cfg.Dir, 0o711); err != nil {
		return nil, fmt.Errorf("make engine directory: %w", err)
	}
	log, err := os.Create(filepath.Join(cfg.Dir, "engine.log"))
	if err != nil {
		return nil, fmt.Errorf("make engine log: %w", err)
	}
	defer log.Close()
	// Not bound to ctx: that ends the start, not the engine.
	e.cmd = exec.Command("nsenter", e.arguments()...)
	e.cmd.Stdout, e.cmd.Stderr = log, log
	e.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if cfg.EndWithParent {
		e.cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	if err := e.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start engine: %w", err)
	}
	go func() {
		_ = e.cmd.Wait()
		close(e.done)
	}()
	if err := e.waitReady(ctx); err != nil {
		return nil, errors.Join(err, e.Stop())
	}
	return e, nil
}

// arguments returns those of nsenter.
func (e *Engine) arguments() []string {
	var enter []string
	unshare := []string{"unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"}
	if e.cfg.Namespace != "" {
		enter = []string{"--net=" + e.cfg.Namespace}
	} else {
		unshare = append(unshare, "--net")
	}
	dockerd := []string{
		"--host=unix:///var/run/docker.sock", "--host=unix://" + e.Socket(),
		"--data-root=" + filepath.Join(e.cfg.Dir, "data"),
		"--add-runtime=lab=" + e.cfg.Runtime, "--default-runtime=lab",
		"--cgroup-parent=" + e.cfg.CgroupParent, "--exec-opt=native.cgroupdriver=cgroupfs",
	}
	if e.cfg.Namespace == "" {
		dockerd = append(dockerd, "--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false")
	}
	if e.cfg.Nftables {
		dockerd = append(dockerd, "--firewall-backend=nftables", "--bridge-accept-fwmark="+AcceptMark)
	}
	args := append(enter, unshare...)
	args = append(args, "sh", "-c", script, "dockerd")
	return append(args, dockerd...)
}

// Socket returns the path of the engine's socket on this machine.
func (e *Engine) Socket() string { return filepath.Join(e.cfg.Dir, "docker.sock") }

// Shutdown ends the engine in order, with its containers, as the host's service
// manager does. Its control groups stay for the next one.
func (e *Engine) Shutdown(ctx context.Context) error {
	// unshare and nsenter hand no signal on: the engine is asked itself.
	pid, err := e.daemon()
	if err != nil {
		return fmt.Errorf("end engine: %w", err)
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return fmt.Errorf("end engine: %w", err)
	}
	select {
	case <-e.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("end engine: %w", ctx.Err())
	}
}

// daemon finds the process of the engine by its data directory.
func (e *Engine) daemon() (int, error) {
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return 0, err
	}
	want := "\x00--data-root=" + filepath.Join(e.cfg.Dir, "data") + "\x00"
	for _, path := range lines {
		text, err := os.ReadFile(path)
		if err == nil && strings.HasPrefix(string(text), "dockerd\x00") && strings.Contains(string(text), want) {
			return strconv.Atoi(filepath.Base(filepath.Dir(path)))
		}
	}
	return 0, errors.New("no process found")
}

// Stop kills the engine and everything that runs in it, and removes its control
// groups.
func (e *Engine) Stop() error {
	if err := e.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop engine: %w", err)
	}
	<-e.done
	ctx, cancel := context.WithTimeout(context.Background(), engineStop)
	defer cancel()
	return removeCgroups(ctx, e.cfg.CgroupParent)
}

func (e *Engine) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, engineStart)
	defer cancel()
	for {
		if ping(ctx, e.Socket()) == nil {
			return nil
		}
		select {
		case <-e.done:
			return fmt.Errorf("engine ended while it started: %s", e.lastWords())
		case <-ctx.Done():
			return fmt.Errorf("wait for engine: %w: %s", ctx.Err(), e.lastWords())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// lastWords returns the end of the engine's log.
func (e *Engine) lastWords() string {
	text, err := os.ReadFile(filepath.Join(e.cfg.Dir, "engine.log"))
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], "\n")
}

func ping(ctx context.Context, socket string) error {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://engine/_ping", nil)
	if err != nil {
		return err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("engine answers %s", resp.Status)
	}
	return nil
}

// StartBuildEngine starts an engine without a network, which ends with the
// thread that calls. Its images stay in dir for the next time. It waits until
// no other engine has the directory.
func StartBuildEngine(ctx context.Context, dir, runtime string) (*Engine, error) {
	for _, path := range []*string{&dir, &runtime} {
		abs, err := filepath.Abs(*path)
		if err != nil {
			return nil, fmt.Errorf("path of the engine: %w", err)
		}
		*path = abs
	}
	if err := lock(dir); err != nil {
		return nil, err
	}
	// The group is of this engine alone: its end removes it.
	group := fmt.Sprintf("/honeysens-build-%d", os.Getpid())
	return StartEngine(ctx, EngineConfig{Dir: dir, Runtime: runtime, CgroupParent: group, EndWithParent: true})
}

// lock takes a directory for this process until it ends: two engines would ruin
// each other's images.
func lock(dir string) error {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return fmt.Errorf("make engine directory: %w", err)
	}
	fd, err := unix.Open(filepath.Join(dir, "lock"), unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("open lock of engine directory: %w", err)
	}
	if err := unix.Flock(fd, unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock engine directory: %w", err)
	}
	return nil
}

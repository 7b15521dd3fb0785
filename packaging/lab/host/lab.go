package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"time"
)

// Config says where the lab is. Two labs with different prefixes and
// directories can be up at the same time.
type Config struct {
	// Prefix begins the names of the namespaces; "lab" when empty.
	Prefix string
	// Dir holds everything that the lab writes; Down removes it.
	Dir string
	// Runtime is the program runcshim, built.
	Runtime string
	// Compose is Docker Compose as a plug-in of the docker command.
	Compose string
	// Nftables has the engine of the sensor host write rules for nftables instead
	// of iptables, which Docker can from 29 on.
	Nftables bool
}

// Lab is a network of hosts on this machine.
type Lab struct {
	cfg Config
	// engine is that of the sensor host, nil when another program has started it.
	engine *Engine
}

var prefixes = regexp.MustCompile(`^[a-z][a-z0-9]{0,7}$`)

// New returns the lab that a configuration describes. It may be up already.
func New(cfg Config) (*Lab, error) {
	if cfg.Prefix == "" {
		cfg.Prefix = "lab"
	}
	if !prefixes.MatchString(cfg.Prefix) {
		return nil, fmt.Errorf("prefix %q of the lab: want up to eight lower-case letters and digits", cfg.Prefix)
	}
	for _, path := range []*string{&cfg.Dir, &cfg.Runtime, &cfg.Compose} {
		if *path == "" {
			return nil, errors.New("directory, runtime and compose program of the lab are needed")
		}
		abs, err := filepath.Abs(*path)
		if err != nil {
			return nil, fmt.Errorf("path of the lab: %w", err)
		}
		*path = abs
	}
	return &Lab{cfg: cfg}, nil
}

// Nftables tells whether the sensor host's engine writes rules for nftables.
func (l *Lab) Nftables() bool { return l.cfg.Nftables }

// Dir returns the absolute path of the lab's directory.
func (l *Lab) Dir() string { return l.cfg.Dir }

// Up removes what an earlier lab left and puts up a new one, with a Docker
// engine on the sensor host. It needs root. On an error nothing stays.
func (l *Lab) Up(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("the lab needs root: it makes network namespaces")
	}
	for _, program := range []string{l.cfg.Runtime, l.cfg.Compose} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("program of the lab: %w; `make lab` builds it", err)
		}
	}
	if err := l.Down(ctx); err != nil {
		return err
	}
	if err := l.up(ctx); err != nil {
		return errors.Join(err, l.Down(context.WithoutCancel(ctx)))
	}
	return nil
}

func (l *Lab) up(ctx context.Context) error {
	if err := os.MkdirAll(l.cfg.Dir, 0o755); err != nil {
		return fmt.Errorf("make lab directory: %w", err)
	}
	if err := l.installCompose(); err != nil {
		return err
	}
	if err := l.makeNetwork(ctx); err != nil {
		return err
	}
	if l.cfg.Nftables {
		// Here the engine leaves that to the operator, and insists on it.
		if err := output(l.Command(ctx, Sensor, "sysctl", "-qw", "net.ipv4.ip_forward=1")); err != nil {
			return fmt.Errorf("switch forwarding on: %w", err)
		}
	}
	return l.startEngine(ctx)
}

func (l *Lab) startEngine(ctx context.Context) (err error) {
	l.engine, err = StartEngine(ctx, EngineConfig{
		Dir:          l.engineDir(),
		Namespace:    l.namespacePath(Sensor),
		Runtime:      l.cfg.Runtime,
		CgroupParent: l.cgroup(),
		Nftables:     l.cfg.Nftables,
	})
	return err
}

// RestartEngine ends the engine of the sensor host, which ends its containers in
// order before, and starts it again.
func (l *Lab) RestartEngine(ctx context.Context) error {
	if err := l.engine.Shutdown(ctx); err != nil {
		return err
	}
	return l.startEngine(ctx)
}

// Down removes every trace of the lab: processes, containers, mounts,
// namespaces, control groups and files. It is no error when there is none.
func (l *Lab) Down(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := l.endProcesses(ctx, hosts()...); err != nil {
		return err
	}
	if err := l.removeNetwork(ctx); err != nil {
		return err
	}
	if err := removeCgroups(ctx, l.cgroup()); err != nil {
		return err
	}
	if err := os.RemoveAll(l.cfg.Dir); err != nil {
		return fmt.Errorf("remove lab directory: %w", err)
	}
	return nil
}

func (l *Lab) engineDir() string { return filepath.Join(l.cfg.Dir, "engine") }

// cgroup names the control group of the containers, absolute in every
// hierarchy.
func (l *Lab) cgroup() string { return "/honeysens-" + l.cfg.Prefix }

// Start starts a program on a machine that goes on when this one ends; Down
// ends it. What it prints goes to the file NAME.log in the lab's directory.
func (l *Lab) Start(h Host, name, program string, args ...string) (*os.Process, error) {
	log, err := os.Create(filepath.Join(l.cfg.Dir, name+".log"))
	if err != nil {
		return nil, fmt.Errorf("make log of %s: %w", name, err)
	}
	defer log.Close()
	cmd := l.Command(context.Background(), h, program, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return cmd.Process, nil
}

package enginetest

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// KillDaemons ends the engine and its containerd, as the kernel does when memory
// is short. Shims and containers live on.
func (e *Engine) KillDaemons() {
	e.t.Helper()
	for _, file := range []string{"docker.pid", "exec/containerd/containerd.pid"} {
		text, err := os.ReadFile(filepath.Join(e.dir, file))
		if err != nil {
			e.t.Fatal(err)
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			e.t.Fatal(err)
		}
		e.kill(pid)
	}
	e.Stop()
	// A number that is given again to another process would be taken for it.
	if err := os.Remove(filepath.Join(e.dir, "exec/containerd/containerd.pid")); err != nil {
		e.t.Fatal(err)
	}
}

// KillShims ends the shims of the engine that is no more, and what is left of its
// containers: a killed one leaves some that its successor does not know.
func (e *Engine) KillShims() {
	e.t.Helper()
	address := filepath.Join(e.dir, "exec/containerd/containerd.sock")
	e.killAll("cmdline", func(line string) bool { return strings.Contains(line, address) })
	// Some are of containers that have been removed since: they are known by what
	// they have mounted.
	e.killAll("mountinfo", func(mounts string) bool { return strings.Contains(mounts, e.Data+"/") })
}

// killAll ends the processes of which a file below /proc says that they are meant.
func (e *Engine) killAll(file string, meant func(string) bool) {
	e.t.Helper()
	found, err := filepath.Glob(filepath.Join("/proc/[0-9]*", file))
	if err != nil {
		e.t.Fatal(err)
	}
	for _, path := range found {
		text, err := os.ReadFile(path)
		if err != nil || !meant(string(text)) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			e.t.Fatal(err)
		}
		e.kill(pid)
	}
}

// KillAll ends everything that the engine has started, and the engine.
func (e *Engine) KillAll() {
	e.t.Helper()
	e.KillDaemons()
	e.KillShims()
}

// kill ends a process and waits for its end.
func (e *Engine) kill(pid int) {
	e.t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		e.t.Fatal(err)
	}
	deadline := time.After(startTimeout)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !dead(pid) {
		select {
		case <-tick.C:
		case <-deadline:
			e.t.Fatalf("process %d does not end", pid)
		}
	}
}

// dead tells whether a process has ended, even if nobody has waited for it.
func dead(pid int) bool {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	_, rest, _ := strings.Cut(string(text), ") ")
	return err != nil || strings.HasPrefix(rest, "Z")
}

package hosttest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"honeysens.org/dockersensor/shared/helperapi"
	"honeysens.org/dockersensor/shared/nettest"
)

// Container is what an engine makes for a service's sandbox: a process in a
// network namespace and a cgroup of its own.
type Container struct {
	*nettest.Host
	helperapi.Sandbox
	stop func()
}

// NewContainer starts one. It ends with the test.
func NewContainer(t testing.TB, name string) *Container {
	t.Helper()
	nettest.Need(t, "sleep")
	host := nettest.NewHost(t, name)
	c := start(t, host)
	return c
}

// NewContainerIn starts a container within an existing namespace.
func NewContainerIn(t testing.TB, host *nettest.Host) *Container {
	t.Helper()
	return start(t, host)
}

func start(t testing.TB, host *nettest.Host) *Container {
	t.Helper()
	raw := make([]byte, 32)
	_, _ = rand.Read(raw)
	id := hex.EncodeToString(raw)
	cgroup, err := makeCgroup(id)
	if err != nil {
		t.Fatalf("cgroup: %v", err)
	}
	cmd := exec.CommandContext(context.Background(), "sleep", "infinity")
	if err := host.Start(cmd); err != nil {
		t.Fatalf("start container: %v", err)
	}
	stopped := false
	c := &Container{Host: host, Sandbox: helperapi.Sandbox{ContainerID: id, PID: cmd.Process.Pid}}
	c.stop = func() {
		if stopped {
			return
		}
		stopped = true
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = os.Remove(cgroup)
	}
	t.Cleanup(c.stop)
	if err := os.WriteFile(filepath.Join(cgroup, "cgroup.procs"), []byte(fmt.Sprint(cmd.Process.Pid)), 0); err != nil {
		t.Fatalf("enter cgroup: %v", err)
	}
	return c
}

// Stop ends the container's process.
func (c *Container) Stop() { c.stop() }

// makeCgroup makes a cgroup named after the container, as engines do: on
// version 1 below one controller, on version 2 below the root.
func makeCgroup(id string) (string, error) {
	var errs []error
	for _, root := range []string{"/sys/fs/cgroup/pids", "/sys/fs/cgroup"} {
		var fs unix.Statfs_t
		err := unix.Statfs(root, &fs)
		if err == nil && fs.Type != unix.CGROUP_SUPER_MAGIC && fs.Type != unix.CGROUP2_SUPER_MAGIC {
			err = fmt.Errorf("%s is no cgroup", root)
		}
		path := filepath.Join(root, id)
		if err == nil {
			err = os.Mkdir(path, 0o750)
		}
		if err == nil {
			return path, nil
		}
		errs = append(errs, err)
	}
	return "", errors.Join(errs...)
}

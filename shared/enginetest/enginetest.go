// Package enginetest starts private Docker engines for tests: a data directory,
// a network namespace and a mount namespace of their own, and no rule of theirs
// on the machine. It is used by tests only.
package enginetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/client"

	"honeysens.org/dockersensor/shared/nettest"
)

// layers has the engine keep images by layers, as the one inside the sensor does.
// Fresh ones from 29 on leave that to containerd otherwise, where the sensor's
// runtime cannot bound what is written.
const layers = `{"features": {"containerd-snapshotter": false}}`

// startTimeout is generous: the machine may be busy with other tests.
const startTimeout = 60 * time.Second

// Engine is a running Docker engine. It ends with the test.
type Engine struct {
	// Client talks to it.
	Client *client.Client
	// Socket is the path of its unix socket.
	Socket string
	// Host is what it takes for its host's network.
	Host *nettest.Host
	// Data is the directory of its images and containers.
	Data string

	args []string
	t    testing.TB
	dir  string
	stop func()
}

// Start starts an engine as it runs inside the sensor: without a bridge and
// without any rule; args are further options of dockerd. Where dockerd is missing
// the test is skipped, or fails in CI.
func Start(t testing.TB, args ...string) *Engine {
	t.Helper()
	nettest.Need(t, "dockerd", "runc")
	dir := t.TempDir()
	e := &Engine{
		t: t, dir: dir, args: args, Socket: filepath.Join(dir, "docker.sock"), Data: filepath.Join(dir, "data"),
		Host: nettest.NewHost(t, "engine"),
	}
	t.Cleanup(e.Stop)
	err := os.WriteFile(e.config(), []byte(layers), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	e.Client, err = client.NewClientWithOpts(client.WithHost("unix://"+e.Socket), client.WithAPIVersionNegotiation())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Client.Close() })
	e.Run()
	return e
}

// Run starts the engine again after Stop, with the data that it had.
func (e *Engine) Run() {
	e.t.Helper()
	args := append([]string{
		"--config-file", e.config(), "--data-root", e.Data, "--exec-root", filepath.Join(e.dir, "exec"),
		"--pidfile", filepath.Join(e.dir, "docker.pid"), "-H", "unix://" + e.Socket,
		"--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false",
	}, e.args...)
	cmd := exec.CommandContext(context.WithoutCancel(e.t.Context()), "dockerd", args...)
	// Whatever it mounts goes with its mount namespace, and it goes with us.
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGTERM}
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	started, ended := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(ended)
		// The kernel sends Pdeathsig when the thread ends that started the
		// process, so that thread waits for it.
		_ = e.Host.Do(func() error {
			err := cmd.Start()
			started <- err
			if err != nil {
				return err
			}
			return cmd.Wait()
		})
	}()
	if err := <-started; err != nil {
		e.t.Fatalf("start dockerd: %v", err)
	}
	e.stop = sync.OnceFunc(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(startTimeout):
			_ = cmd.Process.Kill()
			<-ended
		}
	})
	if err := e.wait(ended); err != nil {
		e.stop()
		e.t.Fatalf("dockerd: %v\n%s", err, &log)
	}
}

func (e *Engine) config() string { return filepath.Join(e.dir, "daemon.json") }

// Stop stops the engine and all its containers, and waits for it.
func (e *Engine) Stop() {
	if e.stop != nil {
		e.stop()
	}
}

// wait returns when the engine answers or has ended.
func (e *Engine) wait(ended <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := e.Client.Ping(ctx); err == nil {
			return nil
		}
		select {
		case <-ended:
			return errors.New("it ended before it answered")
		case <-ctx.Done():
			return fmt.Errorf("it does not answer within %v", startTimeout)
		case <-tick.C:
		}
	}
}

// Package nettest makes network namespaces for tests: hosts of their own on a
// real kernel. It is used by tests only.
package nettest

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Need ends the test as skipped when a tool is missing or the user is not
// root, and as failed when CI is set.
func Need(t testing.TB, tools ...string) {
	t.Helper()
	missing := ""
	if os.Geteuid() != 0 {
		missing = "root"
	}
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			missing = tool
		}
	}
	switch {
	case missing == "":
	case os.Getenv("CI") != "":
		t.Fatalf("%s is missing", missing)
	default:
		t.Skipf("%s is missing", missing)
	}
}

// Host is a network namespace. It ends with the test.
type Host struct {
	t    testing.TB
	name string
	ns   netns.NsHandle
}

var counter atomic.Int64

// NewHost makes a namespace with the loopback interface up. Its name only
// shows in messages.
func NewHost(t testing.TB, name string) *Host {
	t.Helper()
	Need(t, "ip")
	h := &Host{t: t, name: name}
	done := make(chan error)
	// The thread ends with its goroutine since it is never unlocked, so its
	// namespace cannot leak into other tests.
	go func() {
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("unshare: %w", err)
			return
		}
		var err error
		h.ns, err = netns.Get()
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatalf("new host %s: %v", name, err)
	}
	t.Cleanup(func() { _ = h.ns.Close() })
	h.Run("ip", "link", "set", "lo", "up")
	return h
}

// Fd returns the descriptor of the namespace.
func (h *Host) Fd() int { return int(h.ns) }

// Path returns a path by which this process and its children can open the
// namespace.
func (h *Host) Path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), int(h.ns)) }

// Do runs fn on a thread in the namespace and waits for it. Sockets that fn
// opens stay in the namespace. fn must not call t.Fatal, and goroutines that it
// starts are elsewhere.
func (h *Host) Do(fn func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := netns.Set(h.ns); err != nil {
			done <- fmt.Errorf("enter %s: %w", h.name, err)
			return
		}
		done <- fn()
	}()
	return <-done
}

// Start starts a command in the namespace; the caller waits for it.
func (h *Host) Start(cmd *exec.Cmd) error {
	return h.Do(cmd.Start)
}

// Try runs a command in the namespace and returns what it printed.
func (h *Host) Try(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := h.Start(cmd); err != nil {
		return "", err
	}
	err := cmd.Wait()
	return out.String(), err
}

// Run is Try, and fails the test on an error.
func (h *Host) Run(name string, args ...string) string {
	h.t.Helper()
	out, err := h.Try(name, args...)
	if err != nil {
		h.t.Fatalf("%s: %s %s: %v\n%s", h.name, name, strings.Join(args, " "), err, out)
	}
	return out
}

// Connect links two hosts by a veth pair, brings both ends up and gives them
// addresses, such as "192.0.2.1/24" and "2001:db8::1/64", without waiting for
// duplicate address detection.
func Connect(a *Host, aName string, aAddrs []string, b *Host, bName string, bAddrs []string) {
	a.t.Helper()
	tmp := fmt.Sprintf("nt%d-%d", os.Getpid()%100000, counter.Add(1))
	a.Run("ip", "link", "add", aName, "type", "veth", "peer", "name", tmp)
	a.Run("ip", "link", "set", tmp, "netns", fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), b.Fd()))
	b.Run("ip", "link", "set", tmp, "name", bName)
	a.up(aName, aAddrs)
	b.up(bName, bAddrs)
}

func (h *Host) up(link string, addrs []string) {
	h.t.Helper()
	h.Run("ip", "link", "set", link, "up")
	for _, addr := range addrs {
		args := []string{"addr", "add", addr, "dev", link}
		if strings.Contains(addr, ":") {
			args = append(args, "nodad")
		}
		h.Run("ip", args...)
	}
}

package scenario

import (
	"fmt"
	"os"
	"runtime"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"honeysens.org/dockersensor/packaging/lab/host"
)

// On runs fn on a machine of the lab: sockets that fn opens are that machine's.
func (s *Scenario) On(h host.Host, fn func() error) error {
	return inNamespace(s.Lab.Namespace(h), fn)
}

// inNamespace runs fn on a thread in a named network namespace. Sockets that fn
// opens stay in it.
func inNamespace(name string, fn func() error) error {
	return onOwnThread(func() error {
		handle, err := netns.GetFromName(name)
		if err != nil {
			return fmt.Errorf("open namespace %s: %w", name, err)
		}
		defer handle.Close()
		if err := netns.Set(handle); err != nil {
			return fmt.Errorf("enter namespace %s: %w", name, err)
		}
		return fn()
	})
}

// onOwnThread runs fn on a thread that ends with it, since it is never unlocked.
// The first thread of a process cannot end, and where it is, the process is said
// to live: the end of the lab would end it, too.
func onOwnThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != os.Getpid() {
			done <- fn()
			return
		}
		// While this goroutine holds the first thread, no other gets it.
		done <- onOwnThread(fn)
		runtime.UnlockOSThread()
	}()
	return <-done
}

package scenario

import (
	"fmt"
	"runtime"

	"github.com/vishvananda/netns"

	"honeysens.org/dockersensor/packaging/lab/host"
)

// On runs fn on a machine of the lab: sockets that fn opens are that machine's.
func (s *Scenario) On(h host.Host, fn func() error) error {
	return inNamespace(s.Lab.Namespace(h), fn)
}

// inNamespace runs fn on a thread in a named network namespace. Sockets that fn
// opens stay in it. The thread ends with the goroutine, since it is never
// unlocked.
func inNamespace(name string, fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		handle, err := netns.GetFromName(name)
		if err != nil {
			done <- fmt.Errorf("open namespace %s: %w", name, err)
			return
		}
		defer handle.Close()
		if err := netns.Set(handle); err != nil {
			done <- fmt.Errorf("enter namespace %s: %w", name, err)
			return
		}
		done <- fn()
	}()
	return <-done
}

package attach

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"honeysens.org/dockersensor/shared/helperapi"
)

// maxCgroup bounds /proc/PID/cgroup, in bytes.
const maxCgroup = 64 << 10

// Sandbox is a proved one. It holds the process and its network namespace until
// it is closed.
type Sandbox struct {
	ContainerID string
	pidfd       *os.File
	netns       *os.File
}

// Prove opens the sandbox and checks that it is what the manager says. A process
// that has ended is an error of KindUnavailable, one of somewhere else of
// KindDenied.
func Prove(claim helperapi.Sandbox) (*Sandbox, error) {
	s, err := open(claim)
	if err != nil {
		return nil, err
	}
	if err := s.check(claim); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func open(claim helperapi.Sandbox) (*Sandbox, error) {
	fd, err := unix.PidfdOpen(claim.PID, 0)
	switch {
	case errors.Is(err, unix.ESRCH), errors.Is(err, unix.EINVAL):
		return nil, gone(claim)
	case errors.Is(err, unix.ENOSYS):
		return nil, fmt.Errorf("open process %d: the kernel is too old, 5.3 or newer is needed: %w", claim.PID, err)
	case err != nil:
		return nil, fmt.Errorf("open process %d: %w", claim.PID, err)
	}
	s := &Sandbox{ContainerID: claim.ContainerID, pidfd: os.NewFile(uintptr(fd), "pidfd")}
	s.netns, err = os.Open(fmt.Sprintf("/proc/%d/ns/net", claim.PID))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return nil, errors.Join(gone(claim), s.Close())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open network namespace of process %d: %w", claim.PID, err), s.Close())
	}
	return s, nil
}

func (s *Sandbox) check(claim helperapi.Sandbox) error {
	member, err := cgroupNames(claim.PID, claim.ContainerID)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return gone(claim)
	}
	if err != nil {
		return err
	}
	foreign, err := s.foreignNamespace()
	if err != nil {
		return err
	}
	// Everything was read by pid; that it still lives proves that all of it was
	// of the same process.
	alive, err := s.alive()
	switch {
	case err != nil:
		return err
	case !alive:
		return gone(claim)
	case !member:
		return denied("process %d is not of container %.12s", claim.PID, claim.ContainerID)
	case !foreign:
		return denied("container %.12s is in the sensor's own network", claim.ContainerID)
	}
	return nil
}

// foreignNamespace tells whether the namespace is another than that of the
// calling thread.
func (s *Sandbox) foreignNamespace() (bool, error) {
	own, err := os.Stat("/proc/thread-self/ns/net")
	if err != nil {
		return false, fmt.Errorf("own network namespace: %w", err)
	}
	its, err := s.netns.Stat()
	if err != nil {
		return false, fmt.Errorf("network namespace of container %.12s: %w", s.ContainerID, err)
	}
	return !os.SameFile(own, its), nil
}

// alive: a pidfd becomes readable when its process ends (pidfd_open(2)).
func (s *Sandbox) alive() (bool, error) {
	fds := []unix.PollFd{{Fd: int32(s.pidfd.Fd()), Events: unix.POLLIN}} // #nosec G115 -- descriptors fit
	for {
		n, err := unix.Poll(fds, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("ask for process of container %.12s: %w", s.ContainerID, err)
		}
		return n == 0, nil
	}
}

// path is where plug-ins, which are children, find the namespace.
func (s *Sandbox) path() string {
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), s.netns.Fd())
}

// Close lets the sandbox go.
func (s *Sandbox) Close() error {
	err := s.pidfd.Close()
	if s.netns != nil {
		err = errors.Join(err, s.netns.Close())
	}
	return err
}

func cgroupNames(pid int, containerID string) (bool, error) {
	its, err := readCgroup(fmt.Sprint(pid))
	if err != nil {
		return false, err
	}
	own, err := readCgroup("self")
	if err != nil {
		return false, err
	}
	return namesContainer(its, own, containerID), nil
}

func readCgroup(process string) (string, error) {
	file, err := os.Open("/proc/" + process + "/cgroup")
	if err != nil {
		return "", fmt.Errorf("cgroup of process %s: %w", process, err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxCgroup))
	if err != nil {
		return "", fmt.Errorf("cgroup of process %s: %w", process, err)
	}
	return string(text), nil
}

// namesContainer tells whether the innermost container of a /proc/PID/cgroup is
// the given one, in every hierarchy that names another than the helper's own.
// A hierarchy that the engine does not use, as the unified one beside those of
// cgroup v1, leaves everything in the container that the engine is in: the
// helper's own, or one that the others show around the given one.
func namesContainer(cgroup, own, containerID string) bool {
	outer := map[string]bool{"": true}
	for _, path := range paths(own) {
		outer[innermost(path)] = true
	}
	for _, path := range paths(cgroup) {
		if innermost(path) == containerID {
			around, _, _ := strings.Cut(path, containerID)
			outer[innermost(around)] = true
		}
	}
	found := false
	for _, path := range paths(cgroup) {
		switch id := innermost(path); {
		case id == containerID:
			found = true
		case !outer[id]:
			return false
		}
	}
	return found && !outer[containerID]
}

// paths returns those of a /proc/PID/cgroup, one for each hierarchy
// (cgroups(7)).
func paths(cgroup string) []string {
	var paths []string
	for line := range strings.Lines(cgroup) {
		if parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3); len(parts) == 3 {
			paths = append(paths, parts[2])
		}
	}
	return paths
}

// innermost returns the last container id of a cgroup path, as the drivers
// cgroupfs (ID) and systemd (docker-ID.scope) write it.
func innermost(path string) string {
	for path != "/" && path != "." {
		name := filepath.Base(path)
		name = strings.TrimSuffix(strings.TrimPrefix(name, "docker-"), ".scope")
		if helperapi.ValidContainerID(name) {
			return name
		}
		path = filepath.Dir(path)
	}
	return ""
}

func gone(claim helperapi.Sandbox) error {
	return &helperapi.Error{
		Kind:    helperapi.KindUnavailable,
		Message: fmt.Sprintf("container %.12s: process %d has ended", claim.ContainerID, claim.PID),
	}
}

func denied(format string, args ...any) error {
	return &helperapi.Error{Kind: helperapi.KindDenied, Message: fmt.Sprintf(format, args...)}
}

package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// endProcesses ends every process that lives on some machines of the lab, and
// waits until none is left.
func (l *Lab) endProcesses(ctx context.Context, machines ...Host) error {
	wanted := map[namespaceID]bool{}
	for _, h := range machines {
		id, err := identify(l.namespacePath(h))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("look at namespace %s: %w", l.Namespace(h), err)
		}
		wanted[id] = true
	}
	// A name that is bound to this program's own namespace by mistake must not
	// end everything on the machine.
	own, err := identify("/proc/self/ns/net")
	if err != nil {
		return fmt.Errorf("look at own namespace: %w", err)
	}
	delete(wanted, own)
	for {
		left := killIn(wanted)
		if left == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("end processes of the lab: %d left: %w", left, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// namespaceID tells namespaces apart.
type namespaceID struct{ dev, inode uint64 }

func identify(path string) (namespaceID, error) {
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil {
		return namespaceID{}, err
	}
	return namespaceID{dev: stat.Dev, inode: stat.Ino}, nil
}

// killIn kills the processes of some network namespaces and returns their
// number. A pidfd is taken before the look, so that no other process that gets
// the number is hit.
func killIn(wanted map[namespaceID]bool) int {
	found := 0
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if killOne(pid, wanted) {
			found++
		}
	}
	return found
}

func killOne(pid int, wanted map[namespaceID]bool) bool {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	// The namespace of a zombie is gone already: it cannot be looked at.
	id, err := identify(filepath.Join("/proc", strconv.Itoa(pid), "ns/net"))
	if err != nil || !wanted[id] {
		return false
	}
	return unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) == nil
}

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// delegateCgroup makes room for the nested engine on cgroup v2: a group with
// controllers for its children may hold no processes itself (cgroups(7), "no
// internal processes"), so those of the container move into a child, `init`.
//
// On cgroup v1, and where the container shares the host's cgroup namespace, it
// does nothing.
func delegateCgroup(mount, proc string) error {
	own, err := ownTree(mount, proc)
	if err != nil || !own {
		return err
	}
	leaf := filepath.Join(mount, "init")
	if err := os.Mkdir(leaf, 0o750); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make control group: %w", err)
	}
	if err := moveAll(filepath.Join(mount, "cgroup.procs"), filepath.Join(leaf, "cgroup.procs")); err != nil {
		return err
	}
	controllers, err := os.ReadFile(filepath.Join(mount, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("read controllers: %w", err)
	}
	var errs []error
	for _, name := range strings.Fields(string(controllers)) {
		// One at a time: all of a list are refused when one is.
		if err := os.WriteFile(filepath.Join(mount, "cgroup.subtree_control"), []byte("+"+name), 0); err != nil {
			errs = append(errs, fmt.Errorf("switch controller %s on: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// ownTree tells whether mount is the root of a cgroup v2 namespace that is the
// container's own. The root of the host's tree has no file cgroup.type.
func ownTree(mount, proc string) (bool, error) {
	membership, err := os.ReadFile(filepath.Join(proc, "self/cgroup"))
	if err != nil {
		return false, fmt.Errorf("read own control group: %w", err)
	}
	if path := strings.TrimSpace(string(membership)); path != "0::/" {
		return false, nil
	}
	_, err = os.Stat(filepath.Join(mount, "cgroup.type"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at control groups: %w", err)
	}
	return true, nil
}

// moveAll moves the processes of one group into another. Processes that have
// ended meanwhile do not matter.
func moveAll(from, to string) error {
	pids, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("list processes of the control group: %w", err)
	}
	for _, pid := range strings.Fields(string(pids)) {
		if err := os.WriteFile(to, []byte(pid), 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("move process %s into its control group: %w", pid, err)
		}
	}
	return nil
}

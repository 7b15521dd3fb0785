package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const cgroupMount = "/sys/fs/cgroup"

// removeCgroups removes a control group and those below it from every
// hierarchy, and waits for processes in them that have been killed to be gone.
func removeCgroups(ctx context.Context, parent string) error {
	// cgroup v2 has its tree at the mount, v1 and the hybrid have several.
	trees, err := filepath.Glob(filepath.Join(cgroupMount, "*", parent))
	if err != nil {
		return fmt.Errorf("find control groups: %w", err)
	}
	trees = append(trees, filepath.Join(cgroupMount, parent))
	var errs []error
	for _, tree := range trees {
		errs = append(errs, patiently(ctx, func() error { return removeTree(tree) }))
	}
	return errors.Join(errs...)
}

// patiently repeats what the kernel refuses while a group is still in use.
func patiently(ctx context.Context, do func() error) error {
	for {
		err := do()
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// removeTree removes the directories of a tree, the deepest first. Their files
// are the kernel's and go with them.
func removeTree(tree string) error {
	var dirs []string
	err := filepath.WalkDir(tree, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("find control groups: %w", err)
	}
	for _, dir := range slices.Backward(dirs) {
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove control group: %w", err)
		}
	}
	return nil
}

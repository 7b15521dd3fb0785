package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// create mounts the file system of a container before runc looks at it: when
// something bounds its files, and it may write any.
func create(dir, id string) error {
	b, err := readBundle(dir, id)
	if err != nil || b.limit() == 0 || !b.stacked() {
		return err
	}
	if err := errors.Join(b.dropVolumes(), release(id)); err != nil || b.spec.Root.Readonly {
		return err
	}
	at := filepath.Join(b.dir, "files")
	if err := files(filepath.Join(b.dir, "files.img"), at, b.limit()); err != nil {
		return err
	}
	err = b.stackOn(at)
	if errors.Is(err, unix.ENOSPC) {
		// The manager makes the honeypot anew, and tells why.
		return fmt.Errorf("it is full (SERVICE_DISK): %w", err)
	}
	return err
}

// stackOn mounts the layers so that what is written goes to the file system at dir.
func (b *bundle) stackOn(dir string) error {
	upper, work := filepath.Join(dir, "upper"), filepath.Join(dir, "work")
	if err := likewise(filepath.Join(b.layer, "diff"), upper); err != nil {
		return err
	}
	if err := os.MkdirAll(work, 0o700); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	return b.stack(upper, work)
}

// likewise makes a directory as another one is: the root of the container has the
// owner and mode of what it writes into.
func likewise(model, dir string) error {
	var stat unix.Stat_t
	if err := unix.Stat(model, &stat); err != nil {
		return fmt.Errorf("look at %s: %w", model, err)
	}
	// One that was killed may have left it half made.
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make directory: %w", err)
	}
	if err := os.Chown(dir, int(stat.Uid), int(stat.Gid)); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	if err := unix.Chmod(dir, stat.Mode&0o7777); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	return nil
}

// stack mounts the layers of the container in place of what the engine has
// mounted. What the engine has written itself is the uppermost of those that are
// only read.
func (b *bundle) stack(upper, work string) error {
	layers := filepath.Dir(b.layer)
	// The names in the file are relative; absolute ones are too long for a mount of
	// many layers.
	if err := os.Chdir(layers); err != nil {
		return fmt.Errorf("find layers: %w", err)
	}
	below, err := os.ReadFile(filepath.Join(b.layer, "lower"))
	if err != nil {
		return fmt.Errorf("find layers: %w", err)
	}
	lower := filepath.Join(filepath.Base(b.layer), "diff") + ":" + strings.TrimSpace(string(below))
	merged := filepath.Join(b.layer, "merged")
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", lower, upper, work)
	if len(options) >= os.Getpagesize() {
		return fmt.Errorf("the image has too many layers: %d", strings.Count(lower, ":"))
	}
	if err := unix.Unmount(merged, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount layers: %w", err)
	}
	if err := unix.Mount("overlay", merged, "overlay", 0, options); err != nil {
		return fmt.Errorf("mount layers: %w", err)
	}
	if err := unix.Mount(upper, filepath.Join(b.layer, "diff"), "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("show what is written: %w", err)
	}
	return nil
}

// release unmounts the file system of a container, wherever it is mounted. The
// engine unmounts the layers itself.
func release(id string) error {
	mounts, err := mountsOf(id)
	if err != nil {
		return err
	}
	var errs []error
	for _, at := range slices.Backward(mounts) {
		// Lazily: the layers above it may still be there.
		if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
			errs = append(errs, fmt.Errorf("unmount %s: %w", at, err))
		}
	}
	return errors.Join(errs...)
}

// mountsOf returns where the file system of a container is mounted, in the order
// of the mounts. Fields 3 and 5 of a line are the device and the directory
// (proc_pid_mountinfo(5)).
func mountsOf(id string) ([]string, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	suffix := filepath.Join("/containers", id, "files")
	var device string
	var found []string
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		if strings.HasSuffix(fields[4], suffix) {
			device = fields[2]
		}
		if device != "" && fields[2] == device {
			found = append(found, fields[4])
		}
	}
	return found, nil
}

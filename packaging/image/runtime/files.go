package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	blockSize = 4096
	// journal is the smallest that ext4 has, in MB: after a power cut the files are
	// whole, and the host's disk is not asked for more than that.
	journal = 4
	// inodeRatio is how many bytes there are for each file.
	inodeRatio = 16 << 10
	// maxSize is far from what ext4 can have.
	maxSize = 1 << 40
	// busyFor bounds the wait until the kernel lets go of what was unmounted.
	busyFor = 3 * time.Second
	// within bounds mke2fs, which takes milliseconds: the file is sparse.
	within = 30 * time.Second
)

// imageSize is that of a file system which has room for size bytes of files.
func imageSize(size int64) int64 {
	overhead := int64(journal+2)<<20 + size/32
	return (size + overhead + blockSize - 1) / blockSize * blockSize
}

// files mounts the file system of a container at dir. It lies in the file image,
// and is made when it is not there, or cannot be mounted.
func files(image, dir string, size int64) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make directory of the file system: %w", err)
	}
	if _, err := os.Stat(image); err == nil {
		err := mount(image, dir)
		if !errors.Is(err, errDamaged) {
			return err
		}
		fmt.Fprintf(os.Stderr, "runtime: %v; it is made anew\n", err)
	}
	if err := format(image, imageSize(size)); err != nil {
		return err
	}
	return mount(image, dir)
}

// format makes an empty file system, whole or not at all.
func format(image string, size int64) error {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	fresh := image + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove half a file system: %w", err)
	}
	file, err := os.OpenFile(fresh, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("make file system: %w", err)
	}
	if err := errors.Join(file.Truncate(size), file.Close()); err != nil {
		return fmt.Errorf("make file system: %w", err)
	}
	// Nothing is zeroed: a sparse file is. No blocks are kept for root, which a
	// honeypot may be.
	out, err := exec.CommandContext(ctx, "mke2fs", "-q", "-F", "-t", "ext4",
		"-b", strconv.Itoa(blockSize), "-i", strconv.Itoa(inodeRatio), "-J", fmt.Sprintf("size=%d", journal), "-m", "0",
		"-O", "^resize_inode", "-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1,root_owner=0:0", fresh).CombinedOutput()
	if err != nil {
		return fmt.Errorf("make file system: %w: %s", err, strings.TrimSpace(string(out)))
	}
	if err := os.Rename(fresh, image); err != nil {
		return fmt.Errorf("make file system: %w", err)
	}
	return nil
}

// errDamaged is a file that holds no file system.
var errDamaged = errors.New("the file system cannot be mounted")

// mount mounts the file system in a file.
func mount(image, dir string) error {
	file, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open file system: %w", err)
	}
	defer file.Close()
	if err := lock(file); err != nil {
		return err
	}
	device, err := attach(file)
	if err != nil {
		return fmt.Errorf("loop device: %w", err)
	}
	// The device ends with its last user, which is the mount from now on.
	defer device.Close()
	// What is deleted gives its blocks back to the host.
	err = unix.Mount(device.Name(), dir, "ext4", 0, "discard,noinit_itable")
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EUCLEAN) || errors.Is(err, unix.EIO) {
		return fmt.Errorf("%w: %w", errDamaged, err)
	}
	if err != nil {
		return fmt.Errorf("mount ext4: %w", err)
	}
	return nil
}

// lock takes the file for its loop device, which keeps the open file and the lock
// with it: two mounts of one file system would destroy it.
func lock(file *os.File) error {
	err := patiently(func() error { return unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB) }, unix.EWOULDBLOCK)
	if err != nil {
		return fmt.Errorf("file system is in use: %w", err)
	}
	return nil
}

// patiently does something again for as long as the error is this one.
func patiently(do func() error, busy syscall.Errno) error {
	deadline := time.Now().Add(busyFor)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		err := do()
		if !errors.Is(err, busy) || time.Now().After(deadline) {
			return err
		}
		time.Sleep(pause)
	}
}

// probe tells whether a file system can be made and mounted below a directory.
func probe(dir string) (err error) {
	image, at := filepath.Join(dir, "probe.img"), filepath.Join(dir, "probe")
	// That of one that was killed.
	_ = os.Remove(image)
	err = files(image, at, 1<<20)
	if err == nil {
		err = unix.Unmount(at, unix.MNT_DETACH)
	}
	return errors.Join(err, os.Remove(at), removeIfThere(image), removeIfThere(image+".new"))
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("clean up: %w", err)
	}
	return nil
}

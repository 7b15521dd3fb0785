package main

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// share lets a group replace the files of a directory whose names are wanted:
// replacing a file atomically takes the right to write the directory. The owner
// of the directory stays, and becomes the owner of these files again when the
// group has replaced one. Only regular files with a single name are touched.
func share(path string, gid int, wanted func(name string) bool) error {
	dir, err := openDir(unix.AT_FDCWD, path)
	if err != nil {
		return err
	}
	defer dir.Close()
	stat, err := grant(dir, -1, gid, 0o070)
	if err != nil {
		return err
	}
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("list %s: %w", path, err)
	}
	var errs []error
	for _, name := range names {
		if wanted(name) {
			errs = append(errs, shareFile(dir, name, int(stat.Uid), gid))
		}
	}
	return errors.Join(errs...)
}

func shareFile(dir *os.File, name string, uid, gid int) error {
	// O_NONBLOCK: a named pipe must not stop the container.
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s in %s: %w", name, dir.Name(), err)
	}
	file := os.NewFile(uintptr(fd), name)
	defer file.Close()
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return fmt.Errorf("look at %s in %s: %w", name, dir.Name(), err)
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFREG || stat.Nlink != 1 {
		return fmt.Errorf("%s in %s is not a regular file with one name", name, dir.Name())
	}
	_, err = grant(file, uid, gid, 0o060)
	return err
}

// giveState makes the directory `state` in a directory and gives it to the
// manager alone.
func giveState(deployment string, uid, gid int) error {
	parent, err := openDir(unix.AT_FDCWD, deployment)
	if err != nil {
		return err
	}
	defer parent.Close()
	if err := unix.Mkdirat(int(parent.Fd()), "state", 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("make state directory: %w", err)
	}
	dir, err := openDir(int(parent.Fd()), "state")
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := dir.Chown(uid, gid); err != nil {
		return fmt.Errorf("give state directory to the sensor: %w", err)
	}
	if err := dir.Chmod(0o700); err != nil {
		return fmt.Errorf("set mode of the state directory: %w", err)
	}
	return nil
}

func openDir(at int, path string) (*os.File, error) {
	fd, err := unix.Openat(at, path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open directory %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// grant changes owner (−1: not) and group of an open file and adds permissions.
// It returns what the file was before.
func grant(file *os.File, uid, gid int, add uint32) (unix.Stat_t, error) {
	var stat unix.Stat_t
	fd := int(file.Fd())
	if err := unix.Fstat(fd, &stat); err != nil {
		return stat, fmt.Errorf("look at %s: %w", file.Name(), err)
	}
	// A file that is right already is left alone: its file system may be
	// read-only, or of a server that changes no owners.
	mode := stat.Mode & 0o7777
	if int(stat.Gid) != gid || (uid >= 0 && int(stat.Uid) != uid) {
		if err := unix.Fchown(fd, uid, gid); err != nil {
			return stat, fmt.Errorf("give %s to the sensor's group: %w", file.Name(), err)
		}
	}
	if mode&add != add {
		if err := unix.Fchmod(fd, mode|add); err != nil {
			return stat, fmt.Errorf("let the sensor's group write %s: %w", file.Name(), err)
		}
	}
	return stat, nil
}

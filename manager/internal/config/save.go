package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Save writes the archive to where it was read from.
func (a *Archive) Save() error { return a.SaveTo(a.path) }

// SaveTo writes the archive to a file so that after a power cut either the old
// one or the new one is there, whole. Owner and group of the old file are kept
// where the process may do that; others than these never get to read it.
func (a *Archive) SaveTo(path string) error {
	err := a.save(path)
	if errors.Is(err, os.ErrPermission) || errors.Is(err, syscall.EROFS) {
		return fmt.Errorf("save configuration archive: %w; the sensor's user must be able to write to %s", err, filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("save configuration archive: %w", err)
	}
	return nil
}

func (a *Archive) save(path string) error {
	members := append([]member{{name: configName, data: []byte(a.doc.String())}}, a.members...)
	packed, err := pack(members, time.Now())
	if err != nil {
		return err
	}
	// A fixed name, so that interrupted saves do not pile up. It is hidden
	// from the search for the one archive of a directory.
	temp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	if err := os.Remove(temp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := writeNew(temp, path, packed); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	if err := os.Rename(temp, path); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return syncDir(filepath.Dir(path))
}

// writeNew writes a file that did not exist and has it on the disk when it
// returns.
func writeNew(path, old string, data []byte) (err error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if err := takeOwner(file, old); err != nil {
		return err
	}
	if _, err := file.Write(data); err != nil {
		return err
	}
	return file.Sync()
}

// takeOwner gives the file the owner and the group of the old one. A process
// without privileges may do that for groups of its own only, so a refusal is no
// error; the group may read only where it could before.
func takeOwner(file *os.File, old string) error {
	info, err := os.Stat(old)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	if err := file.Chown(int(stat.Uid), -1); err != nil && !errors.Is(err, os.ErrPermission) {
		return err
	}
	if err := file.Chown(-1, int(stat.Gid)); err != nil {
		if errors.Is(err, os.ErrPermission) {
			return nil
		}
		return err
	}
	return file.Chmod(0o600 | info.Mode().Perm()&0o040)
}

// syncDir makes a rename last (fsync(2) of the directory).
func syncDir(path string) (err error) {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	return dir.Sync()
}

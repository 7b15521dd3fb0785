package config

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
)

// Replace writes a file so that at every instant, and after a power cut, either
// the old one or the new one is there, whole. Owner and group of the old file
// are kept where the process may do that; others than these never get to read
// it.
func Replace(path string, data []byte) error {
	return replacement{path: path, step: func(string) {}}.write(data)
}

// replacement is one change of a file.
type replacement struct {
	path string
	// step is told what comes next. A power cut or a kill is possible there.
	step func(string)
}

func (r replacement) write(data []byte) error {
	// A fixed name, so that interrupted writes do not pile up. It is hidden
	// from the search for the one archive of a directory.
	temp := filepath.Join(filepath.Dir(r.path), "."+filepath.Base(r.path)+".new")
	r.step("remove what an interrupted write left")
	if err := os.Remove(temp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := r.writeNew(temp, data); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	r.step("rename")
	if err := os.Rename(temp, r.path); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	r.step("sync directory")
	if err := syncDir(filepath.Dir(r.path)); err != nil {
		return err
	}
	r.step("end")
	return nil
}

// writeNew writes a file that did not exist and has it on the disk when it
// returns.
func (r replacement) writeNew(temp string, data []byte) (err error) {
	r.step("create")
	file, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	r.step("take owner")
	if err := takeOwner(file, r.path); err != nil {
		return err
	}
	r.step("write")
	if _, err := file.Write(data); err != nil {
		return err
	}
	r.step("sync file")
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

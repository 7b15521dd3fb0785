package update

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// engineFiles are on the disks where engines keep what they have: a part of this
// container's image, and a file that Docker mounts from its data directory. The
// nested engine has a volume there.
func engineFiles() []string { return []string{"/usr", "/etc/hostname"} }

// Flush waits until the disks have what the engines have written. These wait for
// their descriptions of images and containers alone, not for the files of them:
// after a power cut in the half minute that the kernel takes its time they would
// be there, and empty. The disks of others, which may hang, are not touched.
func Flush() error {
	var errs []error
	for _, path := range engineFiles() {
		if err := flush(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("flush the engine's disk: %w", err))
		}
	}
	return errors.Join(errs...)
}

// flush writes a file's whole file system to its disk (syncfs(2)).
func flush(path string) (err error) {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if err := unix.Syncfs(int(file.Fd())); err != nil {
		return &os.PathError{Op: "syncfs", Path: path, Err: err}
	}
	return nil
}

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

// SaveTo writes the archive to a file as Replace does.
func (a *Archive) SaveTo(path string) error {
	packed, err := a.Pack()
	if err != nil {
		return fmt.Errorf("save configuration archive: %w", err)
	}
	err = Replace(path, packed)
	if errors.Is(err, os.ErrPermission) || errors.Is(err, syscall.EROFS) {
		return fmt.Errorf("save configuration archive: %w; the sensor's user must be able to write to %s", err, filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("save configuration archive: %w", err)
	}
	return nil
}

// Pack returns the archive as the bytes of its file.
func (a *Archive) Pack() ([]byte, error) {
	members := append([]member{{name: configName, data: []byte(a.doc.String())}}, a.members...)
	return pack(members, time.Now())
}

// Unpack reads the bytes of an archive's file. The archive has no path and
// cannot be saved.
func Unpack(packed []byte) (*Archive, error) {
	if len(packed) > maxPacked {
		return nil, fmt.Errorf("unpack configuration archive: %d bytes: at most %d", len(packed), maxPacked)
	}
	archive, err := parse(packed)
	if err != nil {
		return nil, fmt.Errorf("unpack configuration archive: %w", err)
	}
	return archive, nil
}

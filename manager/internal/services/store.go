package services

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// maxStore bounds the file of wanted services, in bytes.
const maxStore = 8 << 20

// loadWanted reads the services that the server wanted last. The second result
// is false when there is no such file.
func loadWanted(path string) ([]Wanted, bool, error) {
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("read wanted services: %w", err)
	}
	defer file.Close()
	body, err := io.ReadAll(io.LimitReader(file, maxStore+1))
	if err != nil {
		return nil, false, fmt.Errorf("read wanted services: %w", err)
	}
	if len(body) > maxStore {
		return nil, false, fmt.Errorf("read wanted services: %s has more than %d bytes", path, maxStore)
	}
	var wanted []Wanted
	if err := json.Unmarshal(body, &wanted); err != nil {
		return nil, false, fmt.Errorf("read wanted services from %s: %w", path, err)
	}
	return wanted, true, nil
}

// saveWanted replaces the file so that a power cut leaves the old or the new.
func saveWanted(path string, wanted []Wanted) error {
	body, err := json.MarshalIndent(wanted, "", "  ")
	if err != nil {
		return fmt.Errorf("save wanted services: %w", err)
	}
	temp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("save wanted services: %w", err)
	}
	_, err = temp.Write(body)
	if err == nil {
		err = temp.Sync()
	}
	if err = errors.Join(err, temp.Close()); err == nil {
		err = os.Rename(temp.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("save wanted services: %w", err), os.Remove(temp.Name()))
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("save wanted services: %w", err)
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil {
		return fmt.Errorf("save wanted services: %w", err)
	}
	return nil
}

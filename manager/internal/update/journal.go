package update

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"honeysens.org/dockersensor/manager/internal/config"
)

// maxFile bounds each file of the state, in bytes.
const maxFile = 1 << 20

// Names in the directory of updates.
const (
	journalFile = "journal.json"
	memoryFile  = "memory.json"
	archiveFile = "firmware.tar.gz"
)

// Journal keeps the record of the update on the disk.
type Journal struct{ dir string }

// NewJournal returns the journal in a directory, which need not exist.
func NewJournal(dir string) *Journal { return &Journal{dir: dir} }

// Dir returns the directory.
func (j *Journal) Dir() string { return j.dir }

// Read returns the record, or nil when there is no update.
func (j *Journal) Read() (*Record, error) {
	var r *Record
	if err := readJSON(filepath.Join(j.dir, journalFile), &r); err != nil || r == nil {
		return nil, wrap("read journal of the update", err)
	}
	if err := r.Validate(); err != nil {
		return nil, fmt.Errorf("read journal of the update: %w", err)
	}
	return r, nil
}

// Write replaces the record.
func (j *Journal) Write(r *Record) error {
	if err := r.Validate(); err != nil {
		return fmt.Errorf("write journal of the update: %w", err)
	}
	return wrap("write journal of the update", writeJSON(filepath.Join(j.dir, journalFile), r))
}

// Forget ends the update. What it fetched and kept goes first: the record is what
// says that it is there.
func (j *Journal) Forget() error {
	names := []string{archiveFile, string(Old) + reportSuffix, string(New) + reportSuffix}
	entries, err := os.ReadDir(j.dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("end the update: %w", err)
	}
	for _, entry := range entries {
		// A copy from another update would be taken for one of the next.
		if copied.MatchString(entry.Name()) {
			names = append(names, entry.Name())
		}
	}
	for _, name := range append(names, journalFile) {
		if err := os.Remove(filepath.Join(j.dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("end the update: %w", err)
		}
	}
	return nil
}

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// readJSON leaves into alone when there is no such file.
func readJSON(path string, into any) error {
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return err
	}
	if len(data) > maxFile {
		return fmt.Errorf("%s has more than %d bytes", path, maxFile)
	}
	in := json.NewDecoder(bytes.NewReader(data))
	if err := in.Decode(into); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// writeJSON makes the directory, too.
func writeJSON(path string, value any) error {
	data, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return config.Replace(path, append(data, '\n'))
}

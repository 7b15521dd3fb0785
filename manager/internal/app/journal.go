package app

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"honeysens.org/dockersensor/manager/internal/config"
)

// maxJournal bounds the journal's file, in bytes: two archives, as base64.
const maxJournal = 16 << 20

// phase is where a change of the settings stands.
type phase string

const (
	// onTrial: the new settings are in force until they prove themselves, or
	// time is up.
	onTrial phase = "trial"
	// refused: the new settings did not work; the ones before are in force
	// until the next try.
	refused phase = "refused"
	// proved: the new settings work, but the archive could not be written yet.
	proved phase = "proved"
)

// record is what must not be forgotten of a change while it is not settled.
type record struct {
	phase phase
	// before is the last state that worked, and wanted the one that the
	// server wants.
	before, wanted state
	// attempts counts the trials that failed.
	attempts int
	// until is the end of the trial, or the time of the next one.
	until time.Time
	// reason is why the newest trial failed.
	reason string
	// restart tells that the manager ends on purpose, for the next one to go on
	// with the trial.
	restart bool
}

// state is an archive with its settings.
type state struct {
	archive  *config.Archive
	settings config.Settings
}

func (s state) way() config.Way { return s.settings.Way() }

// newState checks an archive.
func newState(archive *config.Archive) (state, error) {
	settings, err := archive.Settings()
	return state{archive: archive, settings: settings}, err
}

// recordFile is a record as it lies on the disk: with secrets, as the archive.
type recordFile struct {
	Phase    phase     `json:"phase"`
	Before   []byte    `json:"before"`
	Wanted   []byte    `json:"wanted"`
	Attempts int       `json:"attempts"`
	Until    time.Time `json:"until"`
	Reason   string    `json:"reason"`
	Restart  bool      `json:"restart,omitempty"`
}

// journal keeps one record on the disk.
type journal string

// write replaces the record by another one, or removes it when that is nil.
func (j journal) write(r *record) error {
	if err := j.put(r); err != nil {
		return fmt.Errorf("write journal of the settings: %w", err)
	}
	return nil
}

func (j journal) put(r *record) error {
	if r == nil {
		// A removal that a power cut undoes does no harm: the record is then
		// compared with the archive, and found to be settled.
		if err := os.Remove(string(j)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	}
	before, err := r.before.archive.Pack()
	if err != nil {
		return err
	}
	wanted, err := r.wanted.archive.Pack()
	if err != nil {
		return err
	}
	data, err := json.Marshal(recordFile{Phase: r.phase, Before: before, Wanted: wanted, Attempts: r.attempts, Until: r.until, Reason: r.reason, Restart: r.restart})
	if err != nil {
		return err
	}
	return config.Replace(string(j), data)
}

// read returns the record, or nil when there is none.
func (j journal) read() (*record, error) {
	file, err := os.Open(string(j))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read journal of the settings: %w", err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxJournal+1))
	if err != nil {
		return nil, fmt.Errorf("read journal of the settings: %w", err)
	}
	if len(data) > maxJournal {
		return nil, fmt.Errorf("read journal of the settings: more than %d MB", maxJournal>>20)
	}
	r, err := parseRecord(data)
	if err != nil {
		return nil, fmt.Errorf("read journal of the settings %s: %w", filepath.Base(string(j)), err)
	}
	return r, nil
}

func parseRecord(data []byte) (*record, error) {
	in := json.NewDecoder(bytes.NewReader(data))
	in.DisallowUnknownFields()
	var f recordFile
	if err := in.Decode(&f); err != nil {
		return nil, err
	}
	if f.Phase != onTrial && f.Phase != refused && f.Phase != proved {
		return nil, fmt.Errorf("unknown phase %.20q", f.Phase)
	}
	if f.Attempts < 0 {
		return nil, fmt.Errorf("%d attempts", f.Attempts)
	}
	r := &record{phase: f.Phase, attempts: f.Attempts, until: f.Until, reason: f.Reason, restart: f.Restart}
	var err error
	if r.before, err = unpackState(f.Before); err != nil {
		return nil, fmt.Errorf("settings before: %w", err)
	}
	if r.wanted, err = unpackState(f.Wanted); err != nil {
		return nil, fmt.Errorf("wanted settings: %w", err)
	}
	return r, nil
}

func unpackState(packed []byte) (state, error) {
	archive, err := config.Unpack(packed)
	if err != nil {
		return state{}, err
	}
	return newState(archive)
}

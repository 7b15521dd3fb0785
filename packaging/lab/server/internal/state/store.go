package state

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"honeysens.org/dockersensor/packaging/lab/admin"
)

// Errors of a Store.
var (
	ErrNotFound = errors.New("not found")
	ErrConflict = errors.New("is there already")
)

// content is what state.json holds.
type content struct {
	NextSensor, NextService, NextFirmware int
	Sensors                               []*admin.Sensor
	Services                              []*admin.Service
	Firmware                              []*admin.Firmware
}

// Store holds the state.
type Store struct {
	dir string

	mu      sync.Mutex
	content content
	events  eventLog
}

// Open reads the state of a directory, or begins one.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(filepath.Join(dir, "firmware"), 0o700); err != nil {
		return nil, fmt.Errorf("open state: %w", err)
	}
	s := &Store{dir: dir, content: content{NextSensor: 1, NextService: 1, NextFirmware: 1}}
	text, err := os.ReadFile(filepath.Join(dir, "state.json"))
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("open state: %w", err)
	default:
		if err := json.Unmarshal(text, &s.content); err != nil {
			return nil, fmt.Errorf("open state: state.json: %w", err)
		}
	}
	if err := s.events.open(filepath.Join(dir, "events.jsonl")); err != nil {
		return nil, fmt.Errorf("open state: %w", err)
	}
	return s, nil
}

// Close writes what is not written yet.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.save(), s.events.close())
}

// save replaces state.json.
func (s *Store) save() error {
	text, err := json.MarshalIndent(s.content, "", "  ")
	if err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	path := filepath.Join(s.dir, "state.json")
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	return nil
}

// Sensors returns all sensors in the order of their ids.
func (s *Store) Sensors() []admin.Sensor {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]admin.Sensor, 0, len(s.content.Sensors))
	for _, sensor := range s.content.Sensors {
		out = append(out, copied(*sensor))
	}
	return out
}

// Sensor returns one sensor.
func (s *Store) Sensor(id int) (admin.Sensor, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sensor, err := s.sensor(id)
	if err != nil {
		return admin.Sensor{}, err
	}
	return copied(*sensor), nil
}

// AddSensor registers a sensor; its id is set here unless it has one that is
// free.
func (s *Store) AddSensor(sensor admin.Sensor) (admin.Sensor, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sensor.ID == 0 {
		sensor.ID = s.content.NextSensor
	}
	if _, err := s.sensor(sensor.ID); err == nil {
		return admin.Sensor{}, fmt.Errorf("sensor %d: %w", sensor.ID, ErrConflict)
	}
	s.content.NextSensor = max(s.content.NextSensor, sensor.ID+1)
	added := copied(sensor)
	s.content.Sensors = append(s.content.Sensors, &added)
	slices.SortFunc(s.content.Sensors, func(a, b *admin.Sensor) int { return cmp.Compare(a.ID, b.ID) })
	return sensor, s.save()
}

// DeleteSensor removes a sensor; its events stay.
func (s *Store) DeleteSensor(id int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.sensor(id); err != nil {
		return err
	}
	s.content.Sensors = slices.DeleteFunc(s.content.Sensors, func(x *admin.Sensor) bool { return x.ID == id })
	return s.save()
}

// Change lets change edit what an operator wants of a sensor, and writes it.
func (s *Store) Change(id int, change func(*admin.Sensor) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	sensor, err := s.sensor(id)
	if err != nil {
		return err
	}
	if err := change(sensor); err != nil {
		return err
	}
	return s.save()
}

// Note lets note edit what a sensor said, without writing it.
func (s *Store) Note(id int, note func(*admin.Sensor) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	sensor, err := s.sensor(id)
	if err != nil {
		return err
	}
	return note(sensor)
}

func (s *Store) sensor(id int) (*admin.Sensor, error) {
	for _, sensor := range s.content.Sensors {
		if sensor.ID == id {
			return sensor, nil
		}
	}
	return nil, fmt.Errorf("sensor %d: %w", id, ErrNotFound)
}

// copied gives a sensor values of its own.
func copied(s admin.Sensor) admin.Sensor {
	s.Services = slices.Clone(s.Services)
	wanted := make(map[string]json.RawMessage, len(s.Wanted))
	for key, value := range s.Wanted {
		wanted[key] = slices.Clone(value)
	}
	s.Wanted = wanted
	if s.Status != nil {
		status := *s.Status
		s.Status = &status
	}
	return s
}

// Services returns all services.
func (s *Store) Services() []admin.Service {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]admin.Service, 0, len(s.content.Services))
	for _, service := range s.content.Services {
		one := *service
		one.Revisions = slices.Clone(service.Revisions)
		out = append(out, one)
	}
	return out
}

// AddService adds a service, or revisions to the one of the same repository. A
// revision that is there already is replaced; the newest is the last.
func (s *Store) AddService(service admin.Service) (admin.Service, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.byRepository(service.Repository)
	if known == nil {
		known = &admin.Service{ID: s.content.NextService, Repository: service.Repository}
		s.content.NextService++
		s.content.Services = append(s.content.Services, known)
	}
	known.Label = service.Label
	for _, revision := range service.Revisions {
		known.Revisions = slices.DeleteFunc(known.Revisions, func(r admin.Revision) bool {
			return r.Revision == revision.Revision && r.Architecture == revision.Architecture
		})
		known.Revisions = append(known.Revisions, revision)
	}
	out := *known
	out.Revisions = slices.Clone(known.Revisions)
	return out, s.save()
}

func (s *Store) byRepository(repository string) *admin.Service {
	for _, service := range s.content.Services {
		if service.Repository == repository {
			return service
		}
	}
	return nil
}

// Firmware returns all firmware.
func (s *Store) Firmware() []admin.Firmware {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]admin.Firmware, 0, len(s.content.Firmware))
	for _, firmware := range s.content.Firmware {
		out = append(out, *firmware)
	}
	return out
}

// AddFirmware takes a file over as firmware. Firmware of the same platform and
// revision is replaced.
func (s *Store) AddFirmware(firmware admin.Firmware, file string) (admin.Firmware, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	firmware.ID = s.content.NextFirmware
	same := slices.IndexFunc(s.content.Firmware, func(f *admin.Firmware) bool {
		return f.Platform == firmware.Platform && f.Revision == firmware.Revision
	})
	if same >= 0 {
		firmware.ID = s.content.Firmware[same].ID
	}
	if err := os.Rename(file, s.FirmwarePath(firmware.ID)); err != nil {
		return admin.Firmware{}, fmt.Errorf("add firmware: %w", err)
	}
	if same >= 0 {
		s.content.Firmware[same] = &firmware
	} else {
		s.content.NextFirmware++
		s.content.Firmware = append(s.content.Firmware, &firmware)
	}
	return firmware, s.save()
}

// FirmwarePath is where the archive of a firmware lies.
func (s *Store) FirmwarePath(id int) string {
	return filepath.Join(s.dir, "firmware", fmt.Sprintf("%d.tar.gz", id))
}

// TempDir is for files on their way in.
func (s *Store) TempDir() (string, error) {
	return os.MkdirTemp(s.dir, "upload-*")
}

// now is the time of what is stored, without what JSON loses.
func now() time.Time { return time.Now().UTC().Round(0) }

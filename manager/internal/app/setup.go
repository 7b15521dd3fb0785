package app

import (
	"fmt"
	"sync"

	"go.uber.org/zap"

	"honeysens.org/dockersensor/manager/internal/config"
)

// setup is the configuration archive with the settings that it holds. Changes
// of the server are written back, so that a restart begins with the newest.
type setup struct {
	log *zap.Logger

	mu      sync.Mutex
	archive *config.Archive
	current config.Settings
}

func openSetup(path string, log *zap.Logger) (*setup, error) {
	archive, notes, err := config.Open(path)
	if err != nil {
		return nil, err
	}
	for _, note := range notes {
		log.Info("configuration archive brought up to date", zap.String("change", note))
	}
	settings, err := archive.Settings()
	if err != nil {
		return nil, err
	}
	return &setup{log: log, archive: archive, current: settings}, nil
}

func (s *setup) path() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.archive.Path()
}

func (s *setup) settings() config.Settings {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current
}

func (s *setup) fingerprints() config.Fingerprints {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.archive.Fingerprints()
}

// take takes over what the server changes and tells whether anything did. An
// error names what could not be taken over or kept; the rest has been.
func (s *setup) take(changes config.Changes) (changed bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	changed, err = s.archive.Update(changes)
	if !changed {
		return false, err
	}
	settings, settingsErr := s.archive.Settings()
	if settingsErr != nil {
		// Update checks each group; only a fault of ours leads here.
		return false, settingsErr
	}
	s.current = settings
	if saveErr := s.archive.Save(); saveErr != nil {
		s.log.Error("the server's changes would be lost by a restart", zap.Error(fmt.Errorf("write configuration archive: %w", saveErr)))
	}
	return true, err
}

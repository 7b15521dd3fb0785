package app

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"honeysens.org/dockersensor/manager/internal/config"
	"honeysens.org/dockersensor/manager/internal/control"
)

const (
	// trialTime is how long new settings have to prove themselves, unless the
	// operator says less.
	trialTime = 3 * time.Minute
	// firstRetry is when a refused change is tried again; each further try
	// comes after twice the time, at most lastRetry.
	firstRetry = 15 * time.Minute
	lastRetry  = 24 * time.Hour
)

// setup is the configuration archive with the settings that it holds. Changes
// of the server are written back, so that a restart begins with the newest.
//
// A change that could cut the sensor off is on trial first:
//
//	settled ──change──▶ on trial ──poll succeeds──▶ settled
//	                     │     ▲
//	             time is up   next try, or another change
//	                     ▼     │
//	                    refused ──server takes it back──▶ settled
//
// Invariants:
//   - Settings that did not prove themselves are in force only while the journal
//     on the disk names the ones before.
//   - The journal is written before the archive when a trial begins or fails, and
//     after it when the change is settled.
//   - A change is judged as a whole: what the server changes besides its way is
//     taken over at once, and survives a refusal.
type setup struct {
	log     *zap.Logger
	journal journal
	// wake tells that the record has changed.
	wake chan struct{}
	// within is how long new settings have to prove themselves.
	within time.Duration
	// step is told what comes next. A power cut or a kill is possible there.
	step func(string)

	mu      sync.Mutex
	current state
	// record is nil when all is settled.
	record *record
	// generation counts the changes of the settings in force.
	generation int
	// reached tells whether the server took a poll since the refusal: the
	// change was at fault then, and not the server.
	reached bool
	// ports are those that this process may connect to, nil for all.
	ports []uint16
	// archiveOld and journalOld tell what the disk does not hold yet.
	archiveOld, journalOld bool
}

// openSetup reads archive and journal. It writes nothing before resume.
func openSetup(path string, log *zap.Logger) (*setup, error) {
	archive, notes, err := config.Open(path)
	if err != nil {
		return nil, err
	}
	for _, note := range notes {
		log.Info("configuration archive brought up to date", zap.String("change", note))
	}
	current, err := newState(archive)
	if err != nil {
		return nil, err
	}
	return &setup{log: log, current: current, wake: make(chan struct{}, 1), within: trialTime, step: func(string) {}}, nil
}

func (s *setup) path() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current.archive.Path()
}

func (s *setup) settings() config.Settings {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current.settings
}

func (s *setup) fingerprints() config.Fingerprints {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current.archive.Fingerprints()
}

// ticket is what a poll was made with.
type ticket struct {
	generation int
	// proof tells that its success proves the settings.
	proof bool
}

// ticket is asked for before a poll; inForce tells whether the host's network
// is as the settings want it.
func (s *setup) ticket(inForce bool) ticket {
	s.mu.Lock()
	defer s.mu.Unlock()
	return ticket{generation: s.generation, proof: inForce || s.record == nil || s.record.wanted.way().SameNetwork(s.record.before.way())}
}

// trial tells whether settings are on trial.
func (s *setup) trial() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.record != nil && s.record.phase == onTrial
}

// due is when elapse has to be called; it is zero when it has not.
func (s *setup) due() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.record == nil || s.record.phase == proved {
		return time.Time{}
	}
	return s.record.until
}

// take takes over what the server changes, and tells whether the settings in
// force did change. An error names what could not be taken over; the rest has
// been. The ticket is that of the poll.
func (s *setup) take(now time.Time, changes config.Changes, t ticket) (changed bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.keep()
	if t.generation != s.generation {
		return false, nil // an answer to what the sensor was before
	}
	if s.record != nil && s.record.phase == refused {
		s.reached = true
	}
	if s.record != nil && s.record.phase == onTrial && t.proof {
		s.prove()
	}
	wanted := s.current.archive.Clone()
	touched, err := wanted.Update(changes)
	if !touched {
		if len(changes.Values) > 0 && s.record != nil && s.record.phase == refused {
			s.settle("the server has taken back settings that did not work")
		}
		return false, err
	}
	next, settingsErr := newState(wanted)
	if settingsErr != nil {
		// Update checks each group; only a fault of ours leads here.
		return false, settingsErr
	}
	changed, tryErr := s.follow(now, next)
	if tryErr != nil {
		return false, tryErr
	}
	return changed, err
}

// follow leads to the state that the server wants, by a trial where that needs
// one.
func (s *setup) follow(now time.Time, next state) (changed bool, err error) {
	switch {
	case next.way().Equal(s.current.way()):
		if s.record != nil && s.record.phase == refused {
			s.settle("the server has taken back settings that did not work")
		}
	case s.record != nil && s.record.phase == refused && next.way().Equal(s.record.wanted.way()):
		next.archive.TakeWay(s.current.archive)
		if next, err = newState(next.archive); err != nil || next.archive.Same(s.current.archive) {
			return false, err
		}
	case s.record != nil && s.record.phase == onTrial && next.way().Equal(s.record.before.way()):
		s.settle("the server has taken back settings on trial")
	default:
		return true, s.try(now, next, 0)
	}
	s.put(next)
	return true, nil
}

// put puts a state into force.
func (s *setup) put(next state) {
	s.current, s.archiveOld = next, true
	s.generation++
}

// settle ends the record; the disk is told after the archive was written.
func (s *setup) settle(message string) {
	s.log.Info(message, zap.Strings("change", s.record.wanted.way().Describe(s.record.before.way())))
	s.record, s.journalOld = nil, true
	s.notify()
}

// try begins a trial. Without a way back on the disk there is none.
func (s *setup) try(now time.Time, next state, attempts int) error {
	before := s.current
	if s.record != nil && s.record.phase == onTrial {
		before = s.record.before
	}
	r := &record{phase: onTrial, before: before, wanted: next, attempts: attempts, until: now.Add(s.within),
		restart: !s.reachable(next.way())}
	s.step("write journal of a trial")
	if err := s.journal.write(r); err != nil {
		return fmt.Errorf("try the server's settings: %w", err)
	}
	s.record, s.journalOld = r, false
	s.put(next)
	s.log.Info("settings of the server on trial", zap.Strings("change", r.wanted.way().Describe(r.before.way())), zap.Duration("for", s.within))
	s.notify()
	return nil
}

// prove ends a trial well.
func (s *setup) prove() {
	s.record.phase, s.journalOld = proved, true
	s.log.Info("settings of the server have proved themselves", zap.Strings("change", s.record.wanted.way().Describe(s.record.before.way())))
	s.notify()
}

// refuse ends a trial badly: the last state that worked returns.
func (s *setup) refuse(now time.Time, reason string) {
	r := *s.record
	if r.attempts == 0 || s.reached {
		r.attempts++
	}
	r.phase, r.reason, r.until = refused, reason, now.Add(retryAfter(r.attempts))
	s.record, s.reached, s.journalOld = &r, false, true
	s.put(s.withWay(r.before))
	s.log.Warn("settings of the server do not work; the last ones that did are in force again",
		zap.Strings("change", r.wanted.way().Describe(r.before.way())), zap.String("reason", reason), zap.Time("next_try", r.until))
	s.notify()
}

// retryAfter is the time from a failed trial to the next one.
func retryAfter(attempts int) time.Duration {
	if attempts > 7 {
		return lastRetry
	}
	return min(firstRetry<<(max(attempts, 1)-1), lastRetry)
}

// elapse does what is due, and tells whether the settings in force did change.
// The reason is why no poll succeeds.
func (s *setup) elapse(now time.Time, reason string) (changed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.record == nil || now.Before(s.record.until) || s.record.phase == proved {
		return false
	}
	defer s.keep()
	if s.record.phase == onTrial {
		s.refuse(now, fmt.Sprintf("no poll succeeded within %s: %s", s.within, reason))
		return true
	}
	next := s.current.archive.Clone()
	next.TakeWay(s.record.wanted.archive)
	wanted, err := newState(next)
	if err == nil {
		err = s.try(now, wanted, s.record.attempts)
	}
	if err != nil {
		s.log.Warn("settings of the server are not tried again", zap.Error(err))
		s.record.until = now.Add(retryAfter(s.record.attempts))
		return false
	}
	return true
}

// keep brings the disk up to date, as far as possible now; each poll tries it
// again.
func (s *setup) keep() {
	// What is on trial or refused is written down before the archive changes,
	// what is settled after that.
	first := s.record != nil && s.record.phase != proved
	if first {
		s.keepJournal()
	}
	s.keepArchive()
	if first {
		return
	}
	if s.record != nil && !s.archiveOld {
		s.record, s.journalOld = nil, true
	}
	if s.record != nil || !s.archiveOld {
		s.keepJournal()
	}
}

func (s *setup) keepArchive() {
	if !s.archiveOld {
		return
	}
	s.step("save archive")
	if err := s.current.archive.Save(); err != nil {
		s.log.Error("the server's changes would be lost by a restart", zap.Error(fmt.Errorf("write configuration archive: %w", err)))
		return
	}
	s.archiveOld = false
}

func (s *setup) keepJournal() {
	if !s.journalOld {
		return
	}
	s.step("write journal")
	if err := s.journal.write(s.record); err != nil {
		s.log.Error("a restart would not know of the trial of settings", zap.Error(err))
		return
	}
	s.journalOld = false
}

// notify wakes who waits for the record.
func (s *setup) notify() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// state shows a change that is not settled.
func (s *setup) state() control.SettingsState {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.record == nil || s.record.phase == proved {
		return control.SettingsState{}
	}
	return control.SettingsState{
		State: string(s.record.phase), Change: strings.Join(s.record.wanted.way().Describe(s.record.before.way()), "; "),
		Reason: s.record.reason, Attempts: s.record.attempts, Until: s.record.until,
	}
}

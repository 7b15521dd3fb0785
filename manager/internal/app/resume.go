package app

import (
	"time"

	"go.uber.org/zap"
)

// resume goes on where the last manager ended, at whatever moment that was. It
// is called once, before anything else is done with the settings.
func (s *setup) resume(journal journal, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.journal = journal
	r, err := journal.read()
	if err != nil {
		s.log.Error("an unfinished change of the settings is forgotten; those of the archive are in force", zap.Error(err))
		s.journalOld = true
	}
	if r != nil && !s.belongs(r) {
		s.log.Info("the configuration archive was replaced by hand; what was on trial is forgotten")
		r, s.journalOld = nil, true
	}
	s.record = r
	if r != nil {
		s.goOn(now)
	}
	s.keep()
}

// belongs tells whether the archive is one of the two that the record knows, of
// the same sensor. Otherwise a person has put it there.
func (s *setup) belongs(r *record) bool {
	if s.current.settings.Sensor.ID != r.before.settings.Sensor.ID || s.current.settings.Sensor.Secret != r.before.settings.Sensor.Secret {
		return false
	}
	return s.current.way().Equal(r.before.way()) || s.current.way().Equal(r.wanted.way())
}

// goOn does what the record says.
func (s *setup) goOn(now time.Time) {
	back := s.current.way().Equal(s.record.before.way())
	switch {
	case s.record.phase == proved && back:
		s.current = s.withWay(s.record.wanted)
		s.archiveOld = true
	case s.record.phase == proved:
		// Only the journal was not told.
	case s.record.phase == onTrial && s.record.restart:
		// The trial begins with this manager; the end of the next one counts.
		s.current, s.archiveOld = s.withWay(s.record.wanted), true
		s.record = &record{phase: onTrial, before: s.record.before, wanted: s.record.wanted,
			attempts: s.record.attempts, until: now.Add(s.within)}
		s.journalOld = true
	case s.record.phase == onTrial:
		// Whatever ended the manager, these settings may have been the cause.
		s.refuse(now, "the sensor ended before the new settings had proved themselves")
	case !back:
		// The end came between journal and archive, or a person has put the
		// wanted archive there: it is on trial either way.
		s.record = &record{phase: onTrial, before: s.withWay(s.record.before), wanted: s.current,
			attempts: s.record.attempts, until: now.Add(s.within)}
		s.journalOld = true
	default:
		// The clock may have been set meanwhile.
		if latest := now.Add(retryAfter(s.record.attempts)); s.record.until.After(latest) {
			s.record.until = latest
		}
	}
}

// withWay is the current state with the way of another one.
func (s *setup) withWay(from state) state {
	archive := s.current.archive.Clone()
	archive.TakeWay(from.archive)
	mixed, err := newState(archive)
	if err != nil {
		// Both are valid, so only a fault of ours leads here.
		s.log.Error("settings cannot be mixed with newer ones", zap.Error(err))
		return from
	}
	return mixed
}

package uploader

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// How often an event must be refused alone, right after another was taken, until
// it is set aside. A server that fails may fail for this one event by chance;
// that it knows the sensor is a weaker proof than that it took another event.
const (
	refusalsOfContent = 1
	refusalsByFault   = 3
	refusalsWhenKnown = 3
)

// maxInRow is how many events are tried alone until it is an outage, and how
// many of those are tried alone again when that has passed.
const maxInRow = 8

// retrySuspect is the time until a suspect is sent again, for each refusal.
const retrySuspect = 30 * time.Second

// suspect is an event that the server refused alone.
type suspect struct {
	// refusals counts those that were proved to be no outage.
	refusals int
	// pending is set while the newest refusal may have been one.
	pending bool
	failed  time.Time
	due     time.Time
	reason  string
	// content is set when the server refused the content, rather than failed.
	content bool
}

// rejected tells whether the server understood a request and refused it.
func rejected(err error) bool {
	var r interface{ Rejected() bool }
	return errors.As(err, &r) && r.Rejected()
}

// refused tells whether the reason can be one of the events.
func refused(err error) bool {
	var f interface{ ServerFault() bool }
	return rejected(err) || errors.As(err, &f) && f.ServerFault()
}

// suspect notes that an event was refused alone. Whose fault that is comes out
// when the server takes another one.
func (u *Uploader) suspect(id uint64, err error) error {
	s := u.suspects[id]
	if s == nil {
		s = &suspect{}
		u.suspects[id] = s
	}
	s.note(err)
	u.refusal, u.refused = err, id
	if u.refusedInRow++; u.refusedInRow > maxInRow {
		return u.inOutage()
	}
	return nil
}

func (s *suspect) note(err error) {
	s.pending, s.failed, s.reason, s.content = true, time.Now(), err.Error(), rejected(err)
}

// needed is how many refusals make it the event's fault.
func (s *suspect) needed() int {
	if s.content {
		return refusalsOfContent
	}
	return refusalsByFault
}

// inOutage ends a round in which nothing was taken.
func (u *Uploader) inOutage() error {
	u.outage = true
	return fmt.Errorf("no event is taken: %w", u.refusal)
}

// proved is for when the server has just taken an event.
func (u *Uploader) proved() {
	u.refusal, u.refusedInRow, u.outage = nil, 0, false
	kept := 0
	for _, id := range slices.Sorted(maps.Keys(u.suspects)) {
		s := u.suspects[id]
		if s.refusals > 0 {
			continue
		}
		// After a long outage most of them are innocent, and go with the others.
		if kept++; kept > maxInRow {
			delete(u.suspects, id)
		}
	}
}

// judge tries suspects alone, right after the server took an event, until it
// refuses one: that one is at fault. The others need the next proof.
func (u *Uploader) judge(ctx context.Context) error {
	for _, id := range slices.Sorted(maps.Keys(u.suspects)) {
		s := u.suspects[id]
		if time.Now().Before(s.due) {
			continue
		}
		items, _, err := u.load(ctx, 1, func(other uint64) bool { return other != id })
		if err != nil {
			return err
		}
		if len(items) == 0 {
			// The spool has dropped it.
			delete(u.suspects, id)
			continue
		}
		err = u.post(ctx, items)
		switch {
		case err == nil:
			if err := u.remove(ctx, items); err != nil {
				return err
			}
		case refused(err):
			s.note(err)
			return u.convict(ctx, id, s.needed())
		default:
			return err
		}
	}
	return nil
}

// convict counts a refusal that was no outage.
func (u *Uploader) convict(ctx context.Context, id uint64, needed int) error {
	s := u.suspects[id]
	s.refusals++
	s.pending = false
	s.due = time.Now().Add(time.Duration(s.refusals) * retrySuspect)
	if s.refusals < needed {
		return nil
	}
	if err := u.setAside(ctx, id, s.reason); err != nil {
		return err
	}
	delete(u.suspects, id)
	return nil
}

// convictKnown is for an event whose content was refused and that has no others
// beside it: the server knows the sensor, since it took its other requests.
// That tells nothing about a failing server.
func (u *Uploader) convictKnown(ctx context.Context) error {
	known := u.cfg.Known()
	for id, s := range u.suspects {
		if !s.pending || !s.content || !known.After(s.failed) {
			continue
		}
		if err := u.convict(ctx, id, refusalsWhenKnown); err != nil {
			return err
		}
	}
	return nil
}

package state

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"time"

	"honeysens.org/dockersensor/packaging/lab/admin"
	"honeysens.org/dockersensor/shared/event"
)

// maxLine bounds a stored event, in bytes.
const maxLine = 64 << 20

// eventLog is all events, in memory and in a file of a line each. Its lock is
// that of the Store.
type eventLog struct {
	file   *os.File
	events []admin.Event
	next   int64
	// more is closed and replaced when events arrive.
	more chan struct{}
}

func (l *eventLog) open(path string) error {
	l.next, l.more = 1, make(chan struct{})
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	l.file = file
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var e admin.Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			// A torn line of a server that was killed.
			continue
		}
		l.next = e.ID + 1
		if e.Sensor != 0 {
			l.events = append(l.events, e)
		}
	}
	return lines.Err()
}

func (l *eventLog) close() error { return l.file.Close() }

func (l *eventLog) add(sensor int, at time.Time, batch []event.Event) error {
	var lines bytes.Buffer
	added := make([]admin.Event, 0, len(batch))
	for i, e := range batch {
		stored := admin.Event{ID: l.next + int64(i), Sensor: sensor, Received: at, Event: e}
		line, err := json.Marshal(stored)
		if err != nil {
			return fmt.Errorf("store event: %w", err)
		}
		lines.Write(append(line, '\n'))
		added = append(added, stored)
	}
	if _, err := l.file.Write(lines.Bytes()); err != nil {
		return fmt.Errorf("store events: %w", err)
	}
	l.next += int64(len(batch))
	l.events = append(l.events, added...)
	close(l.more)
	l.more = make(chan struct{})
	return nil
}

// clear forgets all events; a line that is no event keeps the ids going.
func (l *eventLog) clear() error {
	mark, err := json.Marshal(admin.Event{ID: l.next - 1})
	if err != nil {
		return err
	}
	l.events = nil
	if err := l.file.Truncate(0); err != nil {
		return fmt.Errorf("clear events: %w", err)
	}
	if _, err := l.file.Write(append(mark, '\n')); err != nil {
		return fmt.Errorf("clear events: %w", err)
	}
	return nil
}

// AddEvents stores a batch of a sensor.
func (s *Store) AddEvents(sensor int, batch []event.Event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	known, err := s.sensor(sensor)
	if err != nil {
		return err
	}
	if err := s.events.add(sensor, now(), batch); err != nil {
		return err
	}
	known.Events += len(batch)
	known.Batches++
	return nil
}

// Events returns up to limit events with an id above since; all when limit is 0.
func (s *Store) Events(since int64, limit int) []admin.Event {
	events, _ := s.eventsAndMore(since, limit)
	return events
}

func (s *Store) eventsAndMore(since int64, limit int) ([]admin.Event, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.events.events
	from := sort.Search(len(all), func(i int) bool { return all[i].ID > since })
	to := len(all)
	if limit > 0 {
		to = min(to, from+limit)
	}
	return append([]admin.Event{}, all[from:to]...), s.events.more
}

// WaitEvents is Events, but waits for the first until the context ends.
func (s *Store) WaitEvents(ctx context.Context, since int64, limit int) []admin.Event {
	for {
		events, more := s.eventsAndMore(since, limit)
		if len(events) > 0 {
			return events
		}
		select {
		case <-ctx.Done():
			return events
		case <-more:
		}
	}
}

// ClearEvents forgets all events. Ids go on.
func (s *Store) ClearEvents() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.events.clear()
}

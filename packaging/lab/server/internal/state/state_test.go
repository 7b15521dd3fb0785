package state

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"honeysens.org/dockersensor/packaging/lab/admin"
	"honeysens.org/dockersensor/shared/event"
)

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func batch(summaries ...string) []event.Event {
	var out []event.Event
	for _, summary := range summaries {
		out = append(out, event.Event{Summary: summary, Details: []event.Detail{}, Packets: []event.Packet{}})
	}
	return out
}

func TestSurvivesARestart(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	sensor, err := s.AddSensor(admin.Sensor{Name: "a", Secret: "x", Wanted: map[string]json.RawMessage{"proxy_mode": json.RawMessage("1")}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.AddEvents(sensor.ID, batch("one", "two")); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// What a server that was killed leaves behind.
	log, err := os.OpenFile(filepath.Join(dir, "events.jsonl"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := log.WriteString(`{"id": 3, "sens` + "\n"); err != nil {
		t.Fatal(err)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}

	s = open(t, dir)
	got, err := s.Sensor(sensor.ID)
	if err != nil {
		t.Fatal(err)
	}
	sensor.Events, sensor.Batches = 2, 1
	if diff := cmp.Diff(sensor.Wanted, got.Wanted); diff != "" || got.Secret != "x" || got.Events != 2 {
		t.Errorf("%s %+v", diff, got)
	}
	if err := s.AddEvents(sensor.ID, batch("three")); err != nil {
		t.Fatal(err)
	}
	var summaries []string
	for _, e := range s.Events(0, 0) {
		summaries = append(summaries, e.Summary)
	}
	if diff := cmp.Diff([]string{"one", "two", "three"}, summaries); diff != "" {
		t.Error(diff)
	}
	next, err := s.AddSensor(admin.Sensor{})
	if err != nil || next.ID != sensor.ID+1 {
		t.Errorf("next id %d, %v", next.ID, err)
	}
}

func TestClearKeepsIDs(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	if _, err := s.AddSensor(admin.Sensor{}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.AddEvents(1, batch("one")), s.ClearEvents()); err != nil {
		t.Fatal(err)
	}
	if events := s.Events(0, 0); len(events) != 0 {
		t.Errorf("%v", events)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	if err := s.AddEvents(1, batch("two")); err != nil {
		t.Fatal(err)
	}
	if events := s.Events(0, 0); len(events) != 1 || events[0].ID != 2 {
		t.Errorf("%v", events)
	}
}

func TestWaitEvents(t *testing.T) {
	s := open(t, t.TempDir())
	if _, err := s.AddSensor(admin.Sensor{}); err != nil {
		t.Fatal(err)
	}
	got := make(chan []admin.Event)
	go func() { got <- s.WaitEvents(t.Context(), 0, 0) }()
	if err := s.AddEvents(1, batch("one")); err != nil {
		t.Fatal(err)
	}
	if events := <-got; len(events) != 1 {
		t.Errorf("%v", events)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if events := s.WaitEvents(ctx, 1, 0); len(events) != 0 {
		t.Errorf("%v", events)
	}
}

func TestErrors(t *testing.T) {
	s := open(t, t.TempDir())
	if _, err := s.Sensor(1); !errors.Is(err, ErrNotFound) {
		t.Errorf("error %v", err)
	}
	if err := s.AddEvents(1, nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("error %v", err)
	}
	if _, err := s.AddSensor(admin.Sensor{ID: 5}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.AddSensor(admin.Sensor{ID: 5}); !errors.Is(err, ErrConflict) {
		t.Errorf("error %v", err)
	}
	if err := s.DeleteSensor(5); err != nil {
		t.Error(err)
	}
}

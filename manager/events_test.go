package main

import (
	"context"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"honeysens.org/dockersensor/manager/internal/control"
)

// sensor stands for a running manager with three events in quarantine.
type sensor struct{ retries chan control.Retry }

func (s *sensor) Status(context.Context) control.Status {
	return control.Status{
		Version: "1.0", Hostname: "s1", Server: control.ServerState{LastPoll: time.Now(), ClockOffset: 7200},
		Services: []control.ServiceState{{ID: "4", Label: "cowrie", State: "error", Reason: "no image"}},
		Events:   control.EventsState{Quarantined: 3},
	}
}

func (s *sensor) Poll() {}

func (s *sensor) Events(context.Context) (control.EventList, error) {
	list := control.EventList{Counts: control.EventsState{Quarantined: 3}}
	for id := range uint64(3) {
		list.Quarantine = append(list.Quarantine, control.QuarantinedEvent{ID: id + 1, Reason: "refused", Summary: "probe"})
	}
	return list, nil
}

func (s *sensor) SelfTest(context.Context, func(control.TestFinding)) bool { return true }

func (s *sensor) OrderUpdate(control.UpdateOrder) error { return nil }

func (s *sensor) RetryEvents(_ context.Context, retry control.Retry) (int, error) {
	s.retries <- retry
	if retry.All {
		return 3, nil
	}
	found := 0
	for _, id := range retry.IDs {
		if id <= 3 {
			found++
		}
	}
	return found, nil
}

// runSensor serves one until the test ends and returns its socket.
func runSensor(t *testing.T, s *sensor) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "control.sock")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- control.NewServer(s, zap.NewAtomicLevel(), zaptest.NewLogger(t)).Serve(ctx, path) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	for {
		if _, err := control.NewClient(path).Status(t.Context()); err == nil {
			return path
		}
		select {
		case <-t.Context().Done():
			t.Fatal("the sensor does not answer")
		case <-time.After(time.Millisecond):
		}
	}
}

func TestEvents(t *testing.T) {
	socket := runSensor(t, &sensor{})
	out, err := run(t, "manager", "events", "--control-socket", socket)
	if err != nil || !strings.Contains(out, "3 quarantined") || strings.Count(out, "refused") != 3 {
		t.Errorf("error %v, printed:\n%s", err, out)
	}
	out, err = run(t, "manager", "events", "--control-socket", socket, "--json")
	var list control.EventList
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list.Quarantine) != 3 {
		t.Errorf("error %v, printed:\n%s", err, out)
	}
	if err != nil {
		t.Error(err)
	}
}

func TestEventsRetry(t *testing.T) {
	tests := []struct {
		args string
		want control.Retry
		out  string
		err  string
	}{
		{"2 3", control.Retry{IDs: []uint64{2, 3}}, "2 events go to the server again\n", ""},
		{"--all", control.Retry{All: true}, "3 events go to the server again\n", ""},
		{"--json 1", control.Retry{IDs: []uint64{1}}, "{\n  \"events\": 1\n}\n", ""},
		{"3 4", control.Retry{IDs: []uint64{3, 4}}, "1 events go to the server again\n", "1 of the named events are not in quarantine"},
	}
	s := &sensor{retries: make(chan control.Retry, 1)}
	socket := runSensor(t, s)
	for _, test := range tests {
		t.Run(test.args, func(t *testing.T) {
			out, err := run(t, append([]string{"manager", "events", "retry", "--control-socket", socket}, strings.Fields(test.args)...)...)
			if (err == nil) != (test.err == "") || (err != nil && !strings.HasPrefix(err.Error(), test.err)) {
				t.Errorf("error is %v", err)
			}
			if diff := cmp.Diff(test.out, out); diff != "" {
				t.Errorf("printed (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.want, <-s.retries); diff != "" {
				t.Errorf("asked for (-want +got):\n%s", diff)
			}
		})
	}
}

func TestEventsRefuses(t *testing.T) {
	tests := []struct{ args, want string }{
		{"events list", "unknown command"},
		{"events retry", "either the ids"},
		{"events retry --all 3", "either the ids"},
		{"events retry 3 --all", "not the id of an event"},
		{"events retry -- -3", "not the id of an event"},
	}
	for _, test := range tests {
		t.Run(test.args, func(t *testing.T) {
			_, err := run(t, append([]string{"manager"}, strings.Fields(test.args)...)...)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error is %v", err)
			}
		})
	}
}

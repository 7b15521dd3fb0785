package control

import (
	"context"
	"net/netip"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"honeysens.org/dockersensor/shared/helperapi"
)

// fixed is a sensor whose state does not change.
type fixed struct {
	status Status
	polls  atomic.Int32
	// events is what it lists, retry the last one that it was asked for.
	events EventList
	retry  Retry
	err    error
	// findings are those of a self-test.
	findings []TestFinding
}

func (f *fixed) Status(context.Context) Status { return f.status }
func (f *fixed) Poll()                         { f.polls.Add(1) }

func (f *fixed) Events(context.Context) (EventList, error) { return f.events, f.err }

func (f *fixed) SelfTest(_ context.Context, tell func(TestFinding)) bool {
	for _, finding := range f.findings {
		tell(finding)
	}
	return f.err == nil
}

func (f *fixed) OrderUpdate(UpdateOrder) error { return nil }

func (f *fixed) RetryEvents(_ context.Context, retry Retry) (int, error) {
	f.retry = retry
	return len(retry.IDs), f.err
}

// serve runs a server until the test ends and returns a client for it.
func serve(t *testing.T, sensor *fixed, level zap.AtomicLevel) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "control.sock")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- NewServer(sensor, level, zaptest.NewLogger(t)).Serve(ctx, path) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	client := NewClient(path)
	for {
		if _, err := client.Status(t.Context()); err == nil {
			return client
		}
		select {
		case err := <-done:
			done <- nil
			t.Fatalf("serve: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
}

func example() Status {
	return Status{
		Version: "1.0", Platform: "docker_x86/amd64", Hostname: "s14", SensorID: "14",
		Started: time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC),
		Server: ServerState{Address: "192.0.2.9:443", Name: "hs.example.test", Route: "direct",
			LastPoll: time.Date(2026, 11, 24, 9, 59, 30, 0, time.UTC), ClockOffset: -31},
		Network: NetworkState{Observed: helperapi.Observed{Conflicts: []helperapi.Conflict{{
			Port: helperapi.Port{Protocol: helperapi.TCP, Number: 22}, Service: "7", Winner: "host", Reason: "sshd listens on it",
		}}}},
		Services: []ServiceState{{ID: "7", Label: "cowrie", State: "running", Ports: []string{"22/tcp"}}},
		Events:   EventsState{Waiting: 2, Sent: 40},
	}
}

func TestStatusCrossesTheSocket(t *testing.T) {
	want := example()
	got, err := serve(t, &fixed{status: want}, zap.NewAtomicLevel()).Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&want, got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
}

func TestSetLogLevel(t *testing.T) {
	level := zap.NewAtomicLevelAt(zap.InfoLevel)
	client := serve(t, &fixed{}, level)
	for _, refused := range []string{"loud", strings.Repeat("x", 100)} {
		if err := client.SetLogLevel(t.Context(), refused); err == nil {
			t.Errorf("level %.10q was accepted", refused)
		}
	}
	if err := client.SetLogLevel(t.Context(), "warning"); err != nil || level.Level() != zap.WarnLevel {
		t.Errorf("level is %v, error %v", level.Level(), err)
	}
}

func TestPoll(t *testing.T) {
	sensor := &fixed{}
	if err := serve(t, sensor, zap.NewAtomicLevel()).Poll(t.Context()); err != nil || sensor.polls.Load() != 1 {
		t.Errorf("%d polls, error %v", sensor.polls.Load(), err)
	}
}

func TestNoManager(t *testing.T) {
	_, err := NewClient(filepath.Join(t.TempDir(), "none.sock")).Status(t.Context())
	if err == nil || !strings.Contains(err.Error(), "no manager runs at") {
		t.Errorf("error is %v", err)
	}
}

func TestServicesForAPerson(t *testing.T) {
	status := example()
	var out strings.Builder
	if err := status.WriteServices(&out); err != nil {
		t.Fatal(err)
	}
	if lines := strings.Split(out.String(), "\n"); len(lines) != 3 || !strings.HasPrefix(lines[1], "7   cowrie  running") {
		t.Errorf("services:\n%s", out.String())
	}
}

func TestStatusForAPerson(t *testing.T) {
	status := example()
	status.Network.Observed.Lacks = []string{"the kernel cannot count"}
	status.Network.Observed.Services = []helperapi.ServiceObserved{{ID: "7", Redirected: helperapi.Counter{Packets: 5},
		Refused: helperapi.Counter{Packets: 6}, Forged: helperapi.Counter{Packets: 7}, Bounded: helperapi.Counter{Packets: 8}}}
	var out strings.Builder
	if err := status.WriteText(&out, time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"s14 (id 14)", "last poll 30s ago", "differs by -31 s",
		"port 22/tcp wanted by service 7 goes to the host: sshd listens on it",
		"2 waiting, 40 sent", "7 cowrie: running, 22/tcp", "note: the kernel cannot count",
		", 5 connections, 6 packets to where it may not go, 7 frames in somebody else's name, 8 packets above its bounds",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, out.String())
		}
	}
}

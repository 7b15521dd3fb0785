package network

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"honeysens.org/dockersensor/shared/helperapi"
)

// observed has one service with these counts.
func counted(id string, refused, forged uint64) helperapi.ServiceObserved {
	return helperapi.ServiceObserved{
		ID: id, Refused: helperapi.Counter{Packets: refused}, Forged: helperapi.Counter{Packets: forged},
		Tried: []helperapi.Attempt{{To: netip.MustParseAddr("192.0.2.7"), Protocol: "tcp", Port: 22}, {To: netip.MustParseAddr("fd00::1"), Protocol: "ipv6-icmp"}},
	}
}

func TestAttemptsAreToldAtOnceAndThenSeldom(t *testing.T) {
	a := NewAttempts()
	began := time.Now()
	var told []string
	tell := func(summary, details string) error {
		told = append(told, summary+"; "+details)
		return nil
	}
	look := func(after time.Duration, services ...helperapi.ServiceObserved) []string {
		t.Helper()
		told = nil
		if err := a.Report(began.Add(after), helperapi.Observed{Services: services}, tell); err != nil {
			t.Fatal(err)
		}
		return told
	}
	steps := []struct {
		name            string
		after           time.Duration
		refused, forged uint64
		want            []string
	}{
		{"nothing", 0, 0, 0, nil},
		{"the first", time.Second, 3, 0, []string{"Honeypot 7 was stopped: 3 packets to where it may not go; it tried 192.0.2.7 22/tcp, fd00::1 ipv6-icmp"}},
		{"more, at once", 2 * time.Second, 500, 9, nil},
		{"and still more, later", tellEvery + time.Second, 1003, 10, []string{"Honeypot 7 was stopped: 1000 packets to where it may not go, 10 frames in somebody else's name; " +
			"it tried 192.0.2.7 22/tcp, fd00::1 ipv6-icmp; frames with an address of somebody else, or of a protocol that no service needs, were dropped where it is connected"}},
		{"nothing new", 3 * tellEvery, 1003, 10, nil},
		{"new rules count anew", 4 * tellEvery, 2, 10, []string{"Honeypot 7 was stopped: 2 packets to where it may not go, 10 frames in somebody else's name; " +
			"it tried 192.0.2.7 22/tcp, fd00::1 ipv6-icmp; frames with an address of somebody else, or of a protocol that no service needs, were dropped where it is connected"}},
	}
	for _, step := range steps {
		if diff := cmp.Diff(step.want, look(step.after, counted("7", step.refused, step.forged))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step.name, diff)
		}
	}
}

func TestAttemptsOfManyAreSpreadOverTime(t *testing.T) {
	a := NewAttempts()
	began := time.Now()
	var services []helperapi.ServiceObserved
	for i := range 3 * tellAtOnce {
		services = append(services, counted(fmt.Sprint(i), 1, 0))
	}
	seen := map[string]int{}
	for round := range 3 {
		n := 0
		for range 5 {
			err := a.Report(began.Add(time.Duration(round)*tellEvery), helperapi.Observed{Services: services}, func(summary, _ string) error {
				seen[strings.Fields(summary)[1]]++
				n++
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if n != tellAtOnce {
			t.Errorf("round %d: %d reports, want %d", round, n, tellAtOnce)
		}
	}
	if len(seen) != len(services) {
		t.Errorf("%d of %d services were reported", len(seen), len(services))
	}
}

func TestAttemptsThatCannotBeToldStayDue(t *testing.T) {
	a := NewAttempts()
	full := errors.New("spool is full")
	seen := helperapi.Observed{Services: []helperapi.ServiceObserved{counted("7", 1, 0)}}
	if err := a.Report(time.Now(), seen, func(string, string) error { return full }); !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
	n := 0
	if err := a.Report(time.Now(), seen, func(string, string) error { n++; return nil }); err != nil || n != 1 {
		t.Errorf("told %d times, %v", n, err)
	}
}

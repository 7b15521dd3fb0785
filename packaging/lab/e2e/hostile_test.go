package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"honeysens.org/dockersensor/packaging/lab/admin"
	"honeysens.org/dockersensor/packaging/lab/host"
	"honeysens.org/dockersensor/packaging/lab/labtest"
	"honeysens.org/dockersensor/packaging/lab/scenario"
	"honeysens.org/dockersensor/packaging/services/archive"
	"honeysens.org/dockersensor/shared/event"
)

// mischiefPort is where attackers reach the honeypot that was taken over.
const mischiefPort = 2300

// Visits to the other honeypot while one is hostile, and the connections of each.
// A time is the median of them: one alone may hit a pause of the machine. Where the
// machine has become busier in between, both times are measured again.
const (
	visits      = 11
	connections = 5
	rounds      = 3
)

// times are how long the honeypot took to greet, and its event to the server.
type times struct{ answer, event time.Duration }

// hostileHoneypots has a honeypot take all that it can get of one thing after the
// other. The other honeypot and its events are not to suffer, and the status is to
// name the offender.
func hostileHoneypots(t *testing.T, s *scenario.Scenario) {
	file := archive.File{From: program(t, "honeysens.org/dockersensor/packaging/lab/mischief"), To: "/mischief"}
	for kind, word := range map[string]string{
		"fork": "SERVICE_PIDS", "memory": "SERVICE_MEMORY|no memory left", "disk": "SERVICE_DISK", "write": "SERVICE_WRITE_RATE", "log": "SERVICE_LOG_RATE",
		"events": "SERVICE_EVENT_RATE", "dial": "tried to reach others",
	} {
		t.Run(kind, func(t *testing.T) {
			labtest.Diagnose(t, s)
			service := offer(t, s, archive.Metadata{
				Name: "mischief-" + kind, Repository: "honeysens/mischief-" + kind, Revision: "1",
				PortAssignment: fmt.Sprintf(`{"2222/tcp": %d}`, mischiefPort),
			}, archive.ImageConfig{Files: []archive.File{file}, Entrypoint: []string{"/mischief", kind}})
			for n := range rounds {
				// Just before, when the machine is as busy with other things.
				normal := measure(t, s)
				got := whileHostile(t, s, service.ID, word)
				t.Logf("%s: answer %s, normally %s; event %s, normally %s", kind, got.answer, normal.answer, got.event, normal.event)
				if got.answer <= 2*normal.answer && got.event <= 2*normal.event {
					break
				}
				if n == rounds-1 {
					t.Error("that is more than twice the normal time")
				}
			}
			if lost := sensorStatus(t, s).Events.Lost; lost != 0 {
				t.Errorf("%d events are lost", lost)
			}
		})
	}
}

// whileHostile measures while the sensor has a hostile honeypot, and wants the
// status to say why.
func whileHostile(t *testing.T, s *scenario.Scenario, service int, word string) times {
	t.Helper()
	labtest.Must(t, s.Server.Assign(t.Context(), s.Sensor.ID, admin.Assignment{Service: service}))
	defer func() {
		ctx := context.WithoutCancel(t.Context())
		labtest.Must(t, s.Server.Unassign(ctx, s.Sensor.ID, service))
		_, err := s.Exec(ctx, "manager", "poll")
		labtest.Must(t, err)
		within(t, 2*time.Minute, "the hostile honeypot is gone", func() error {
			if len(sensorStatus(t, s).Services) > 2 {
				return fmt.Errorf("it is still there")
			}
			return nil
		})
	}()
	poll(t, s)
	named := make(chan string, 1)
	go func() { named <- offender(t, s, strconv.Itoa(service), word) }()
	// It may be ended before anybody has reached it.
	within(t, time.Minute, "the hostile honeypot runs, or is found out", func() error {
		err := s.Dial(t.Context(), "tcp", host.AttackerV4, s.TargetV4, mischiefPort, greeting)
		if err != nil && len(named) > 0 {
			return nil
		}
		return err
	})
	got := measure(t, s)
	if reason := <-named; reason == "" {
		t.Errorf("the status does not name the offender; services: %+v", sensorStatus(t, s).Services)
	} else {
		t.Logf("status: %s", reason)
	}
	return got
}

// offender waits until the status says one of some words about a service.
func offender(t *testing.T, s *scenario.Scenario, id, words string) string {
	ctx, cancel := context.WithTimeout(t.Context(), labtest.Arrival)
	defer cancel()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		out, err := s.Exec(ctx, "manager", "services")
		for line := range strings.Lines(out) {
			if err == nil && strings.HasPrefix(line, id+" ") && slices.ContainsFunc(strings.Split(words, "|"), func(word string) bool { return strings.Contains(line, word) }) {
				return strings.TrimSpace(line)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ""
		}
	}
}

// greeting reads the first byte.
func greeting(conn net.Conn) error {
	_, err := io.ReadFull(conn, make([]byte, 1))
	return err
}

// measure visits the honeypot time and again, each time until the event of the
// last connection is at the server.
func measure(t *testing.T, s *scenario.Scenario) times {
	t.Helper()
	var answers, events []time.Duration
	for n := range visits {
		word := fmt.Sprintf("visit-%d-%d", n, time.Now().UnixNano())
		since := labtest.LastEvent(t, s)
		for range connections - 1 {
			answers = append(answers, visit(t, s, ""))
		}
		answers = append(answers, visit(t, s, word))
		parted := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), labtest.Arrival)
		_, err := s.Server.WaitEvent(ctx, since, func(e admin.Event) bool {
			return slices.ContainsFunc(e.Details, func(d event.Detail) bool { return strings.Contains(d.Data, word) })
		})
		cancel()
		if err != nil {
			t.Errorf("visit %d has no event: %v", n, err)
			continue
		}
		events = append(events, time.Since(parted))
	}
	return times{median(answers), median(events)}
}

// visit connects, and returns the time until the honeypot greeted; then it says
// something.
func visit(t *testing.T, s *scenario.Scenario, word string) (answer time.Duration) {
	t.Helper()
	start := time.Now()
	err := s.Dial(t.Context(), "tcp", host.AttackerV4, s.TargetV4, s.Port, func(conn net.Conn) error {
		if err := greeting(conn); err != nil {
			return err
		}
		answer = time.Since(start)
		_, err := io.WriteString(conn, word+"\r\n")
		return err
	})
	if err != nil {
		t.Errorf("visit: %v", err)
		return time.Hour
	}
	return answer
}

func median(all []time.Duration) time.Duration {
	if len(all) == 0 {
		return time.Hour
	}
	slices.Sort(all)
	return all[len(all)/2]
}

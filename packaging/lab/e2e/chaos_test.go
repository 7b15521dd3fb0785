package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"honeysens.org/dockersensor/packaging/lab/admin"
	"honeysens.org/dockersensor/packaging/lab/labtest"
	"honeysens.org/dockersensor/packaging/lab/scenario"
	"honeysens.org/dockersensor/packaging/services/archive"
)

const (
	// chaosRuns is how often TestLabChaos kills, unless CHAOS_RUNS says otherwise,
	// and chaosSpan about how long its script takes.
	chaosRuns = 4
	chaosSpan = 8 * time.Second
	chaosPort = 2500
)

// TestLabChaos kills the manager, or the engine in the sensor with its
// containerd, at a random moment while the server changes its mind. Each time the
// sensor comes to the same end.
func TestLabChaos(t *testing.T) {
	runs := chaosRuns
	if text := os.Getenv("CHAOS_RUNS"); text != "" {
		var err error
		runs, err = strconv.Atoi(text)
		labtest.Must(t, err)
	}
	s := labtest.New(t, "chaos")
	labtest.Must(t, s.Up(t.Context()))
	labtest.Must(t, s.Assign(t.Context()))
	labtest.Must(t, s.Deploy(t.Context(), nil))
	labtest.Diagnose(t, s)
	ready(t, s, time.Time{})
	third := offer(t, s, archive.Metadata{
		Name: "third", Repository: "honeysens/third", Revision: "1", PortAssignment: fmt.Sprintf(`{"2222/tcp": %d}`, chaosPort),
	}, archive.ImageConfig{
		Files:      []archive.File{{From: program(t, "honeysens.org/dockersensor/packaging/lab/mischief"), To: "/mischief"}},
		Entrypoint: []string{"/mischief", "nothing", "third"},
	})
	for n := range runs {
		moment := time.Duration(rand.Int64N(int64(chaosSpan)))
		victim, kill := "manager", "kill -9 $(pidof manager)"
		if n%2 == 0 {
			victim, kill = "engine", "kill -9 $(pidof dockerd) $(pidof containerd)"
		}
		t.Logf("%s run %d: %s after %s", time.Now().Format(time.TimeOnly), n, victim, moment)
		ctx, cancel := context.WithTimeout(t.Context(), moment)
		mindChanges(ctx, s, third.ID)
		<-ctx.Done()
		cancel()
		_, err := s.Exec(t.Context(), "sh", "-c", kill)
		labtest.Must(t, err)
		comesToTheEnd(t, s, third.ID)
	}
}

// mindChanges is the script. Commands that the kill takes along may fail.
func mindChanges(ctx context.Context, s *scenario.Scenario, third int) {
	assign := func(a admin.Assignment) error { return s.Server.Assign(ctx, s.Sensor.ID, a) }
	elsewhere := fmt.Sprintf(`{"2222/tcp": %d}`, chaosPort+1)
	tick := time.NewTicker(chaosSpan / 5)
	defer tick.Stop()
	for _, step := range []func() error{
		func() error { return assign(admin.Assignment{Service: third}) },
		func() error { return assign(admin.Assignment{Service: third, PortAssignment: &elsewhere}) },
		func() error { return s.Server.Unassign(ctx, s.Sensor.ID, s.Honeypot.ID) },
		func() error { return assign(admin.Assignment{Service: s.Honeypot.ID}) },
		func() error { return s.Server.Unassign(ctx, s.Sensor.ID, third) },
	} {
		_ = step()
		_, _ = s.Exec(ctx, "manager", "poll")
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// comesToTheEnd wants recon and the honeypot to run, and nothing of the third.
func comesToTheEnd(t *testing.T, s *scenario.Scenario, third int) {
	t.Helper()
	labtest.Must(t, s.Server.Assign(t.Context(), s.Sensor.ID, admin.Assignment{Service: s.Honeypot.ID}))
	assigned, err := s.Server.Sensor(t.Context(), s.Sensor.ID)
	labtest.Must(t, err)
	for _, a := range assigned.Services {
		if a.Service == third {
			labtest.Must(t, s.Server.Unassign(t.Context(), s.Sensor.ID, third))
		}
	}
	eventually(t, "the manager polls", func() error {
		_, err := s.Exec(t.Context(), "manager", "poll")
		return err
	})
	within(t, 2*time.Minute, "the wanted services run", func() error {
		services := sensorStatus(t, s).Services
		if len(services) != 2 {
			return fmt.Errorf("services are %+v", services)
		}
		for _, service := range services {
			if service.State != "running" {
				return fmt.Errorf("services are %+v", services)
			}
		}
		if _, err := s.Exec(t.Context(), "pidof", "mischief"); err == nil {
			return fmt.Errorf("the service that was taken away runs")
		}
		return nil
	})
	honeypotAnswers(t, s, scenario.HoneypotPort)
}

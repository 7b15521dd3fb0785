package e2e

import (
	"context"
	"errors"
	"testing"
	"time"

	"honeysens.org/dockersensor/packaging/lab/admin"
	"honeysens.org/dockersensor/packaging/lab/host"
	"honeysens.org/dockersensor/packaging/lab/labtest"
	"honeysens.org/dockersensor/packaging/lab/scenario"
	"honeysens.org/dockersensor/shared/event"
)

// rebootWithoutServer cuts the server off and reboots the sensor host: honeypots
// answer from what is at hand, and what they report arrives when the server is
// back.
func rebootWithoutServer(t *testing.T, s *scenario.Scenario) {
	labtest.Must(t, s.Lab.Cut(t.Context(), host.Server, true))
	back := func() { labtest.Must(t, s.Lab.Cut(context.WithoutCancel(t.Context()), host.Server, false)) }
	defer back()
	labtest.Must(t, s.Lab.Reboot(t.Context()))
	start := time.Now()
	within(t, readyWithin, "the honeypot answers", func() error {
		return s.Dial(t.Context(), "tcp", host.AttackerV4, s.TargetV4, s.Port, greeting)
	})
	t.Logf("the honeypot answers %s after the engine does, without a server", time.Since(start).Round(100*time.Millisecond))
	for _, service := range sensorStatus(t, s).Services {
		t.Logf("service %s: %s %s", service.ID, service.State, service.Reason)
	}
	serviceIs(t, s, s.Recon.ID, "running", "")
	eventually(t, "the status tells that the server is away", func() error {
		if sensorStatus(t, s).Server.Error == "" {
			return errors.New("it does not")
		}
		return nil
	})
	since := labtest.LastEvent(t, s)
	back()
	labtest.Arrives(t, s, since, "an attack while the server was away", func(e admin.Event) bool {
		return e.Source == host.AttackerV4 && e.Service == event.ServiceGeneric
	})
}

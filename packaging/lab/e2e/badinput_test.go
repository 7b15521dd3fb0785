package e2e

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"honeysens.org/dockersensor/packaging/lab/admin"
	"honeysens.org/dockersensor/packaging/lab/labtest"
	"honeysens.org/dockersensor/packaging/lab/scenario"
)

// badInput gives the running sensor what a broken or forged server could. Each
// time it says what is wrong and runs on with what it has.
func badInput(t *testing.T, s *scenario.Scenario) {
	t.Run("answers", func(t *testing.T) { badAnswers(t, s) })
	t.Run("services", func(t *testing.T) { badServices(t, s) })
	honeypotAnswers(t, s, scenario.HoneypotPort)
	if lost := sensorStatus(t, s).Events.Lost; lost != 0 {
		t.Errorf("%d events are lost", lost)
	}
}

func badAnswers(t *testing.T, s *scenario.Scenario) {
	for _, kind := range []string{
		admin.FaultWrongMAC, admin.FaultNoMAC, admin.FaultGarbage, admin.FaultDrop, admin.FaultError, admin.FaultForbidden,
	} {
		t.Run(kind, func(t *testing.T) {
			labtest.Must(t, s.Server.AddFault(t.Context(), admin.Fault{Path: admin.PathPoll, Kind: kind}))
			eventually(t, "the status tells of it", func() error {
				if _, err := s.Exec(t.Context(), "manager", "poll"); err != nil {
					return err
				}
				if sensorStatus(t, s).Server.Error == "" {
					return fmt.Errorf("no error in the status")
				}
				return nil
			})
			labtest.Must(t, s.Server.ClearFaults(t.Context()))
			eventually(t, "the sensor recovers", func() error {
				if _, err := s.Exec(t.Context(), "manager", "poll"); err != nil {
					return err
				}
				if text := sensorStatus(t, s).Server.Error; text != "" {
					return fmt.Errorf("the status still says %s", text)
				}
				return nil
			})
		})
	}
}

func badServices(t *testing.T, s *scenario.Scenario) {
	missing, err := s.Server.DefineService(t.Context(), admin.Service{
		Label: "missing", Repository: "honeysens/missing",
		Revisions: []admin.Revision{{Revision: "1", Architecture: "amd64", PortAssignment: "{}", URI: "honeysens/missing:1"}},
	})
	labtest.Must(t, err)
	labtest.Must(t, s.Server.Assign(t.Context(), s.Sensor.ID, admin.Assignment{Service: missing.ID}))
	unreadable := "22/tcp to 2222"
	labtest.Must(t, s.Server.Assign(t.Context(), s.Sensor.ID, admin.Assignment{Service: s.Honeypot.ID, PortAssignment: &unreadable}))
	_, err = s.Exec(t.Context(), "manager", "poll")
	labtest.Must(t, err)

	serviceIs(t, s, missing.ID, "error", "missing")
	serviceIs(t, s, s.Honeypot.ID, "error", "port assignment")
	serviceIs(t, s, s.Recon.ID, "running", "")

	labtest.Must(t, s.Server.Unassign(t.Context(), s.Sensor.ID, missing.ID))
	labtest.Must(t, s.Assign(t.Context()))
	_, err = s.Exec(t.Context(), "manager", "poll")
	labtest.Must(t, err)
	serviceIs(t, s, s.Honeypot.ID, "running", "")
}

// serviceIs waits until the status shows a service in a state, with a reason
// that holds a word.
func serviceIs(t *testing.T, s *scenario.Scenario, id int, state, word string) {
	t.Helper()
	eventually(t, fmt.Sprintf("service %d is %s", id, state), func() error {
		for _, service := range sensorStatus(t, s).Services {
			if service.ID == strconv.Itoa(id) && service.State == state && strings.Contains(service.Reason, word) {
				return nil
			}
		}
		return fmt.Errorf("services are %+v", sensorStatus(t, s).Services)
	})
}

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"honeysens.org/dockersensor/packaging/lab/admin"
	"honeysens.org/dockersensor/packaging/lab/host"
	"honeysens.org/dockersensor/packaging/lab/labtest"
	"honeysens.org/dockersensor/packaging/lab/scenario"
)

// The second sensor's compose file has a service of the operator's own, and there
// is an override.
const (
	ownService = `
  # The operator's own.
  other:
    image: operator/other:1
    networks: [own]
    labels: {com.example.kept: "yes"}

networks:
  own: {}

volumes:
  docker_overlay:`
	override = "services:\n  sensor:\n    labels:\n      com.example.override: \"yes\"\n"
)

// TestLabUpdateNeighbours has two sensors on one host, one in host and one in
// bridge networking with more in its compose file, updated at the same time.
func TestLabUpdateNeighbours(t *testing.T) {
	first := deployed(t, "updn", 4*time.Minute)
	second := first.neighbour()
	before := []map[string]string{first.files(), second.files()}
	firmware := first.offer(scenario.Firmware{Revision: "lab-b", Manager: managerPackage})
	address := second.address()
	for _, u := range []*updating{first, second} {
		labtest.Must(t, u.Server.WantFirmware(t.Context(), u.Sensor.ID, firmware.ID))
		u.poll()
	}
	for n, u := range []*updating{first, second} {
		u.reports("revision lab-b", func(s admin.Status) bool { return s.Status == 1 && s.SWVersion == "lab-b" })
		u.eventually("its update has settled", func() error {
			j, err := u.journal()
			if err == nil && j.Phase != "" {
				err = fmt.Errorf("the journal says %q", j.Phase)
			}
			return err
		})
		wantOneLine(t, before[n], u.files(), u.Revision(), "lab-b", project(before[n][".env"]))
	}
	first.eventually("three containers are left", func() error {
		if names := first.containers(); len(names) != 3 {
			return fmt.Errorf("containers: %v", names)
		}
		return nil
	})
	ready(t, first.Scenario, time.Time{})
	labtest.Attack(t, first.Scenario)
	second.eventually("the second sensor's honeypot greets", second.greets)
	t.Logf("address of the sensor in bridge networking: %s before, %s after the update", address, second.address())
	second.keepsTheOperators()
}

// neighbour deploys another sensor on the same host.
func (u *updating) neighbour() *updating {
	t := u.t
	other := exec.CommandContext(t.Context(), "tar", "-cf", "-", "-C", filepath.Join(labtest.Root(t), "out", "bin"), "pause")
	archive, err := other.Output()
	labtest.Must(t, err)
	load := u.Lab.Docker(t.Context(), "import", "--change", `ENTRYPOINT ["/pause"]`, "-", "operator/other:1")
	load.Stdin = strings.NewReader(string(archive))
	labtest.Must(t, load.Run())

	s := *u.Scenario
	s.Sensor, err = s.Server.Register(t.Context(), admin.NewSensor{Name: "second", Location: "lab", Wanted: map[string]json.RawMessage{
		"network_ip_mode": json.RawMessage(`2`), "service_network": json.RawMessage(`"10.20.20.0/24"`),
	}})
	labtest.Must(t, err)
	labtest.Must(t, s.Assign(t.Context()))
	labtest.Must(t, s.DeployAs(t.Context(), host.Deployment{
		Name: "second", Project: "second",
		Edit: map[string]string{
			"network_mode: host": "network_mode: bridge", "\nvolumes:\n  docker_overlay:": ownService,
			"UPDATE_TIME=": "UPDATE_TIME=4m",
		},
		Files: map[string]string{"docker-compose.override.yml": override},
	}))
	second := &updating{Scenario: &s, t: t}
	second.reports("running", func(s admin.Status) bool { return s.Status == 1 })
	second.eventually("the second sensor's honeypot greets", second.greets)
	return second
}

// address returns that of the sensor's container.
func (u *updating) address() string {
	u.t.Helper()
	out, err := u.Lab.Docker(u.t.Context(), "inspect", "--format", "{{.NetworkSettings.IPAddress}}", u.container()).Output()
	labtest.Must(u.t, err)
	return strings.TrimSpace(string(out))
}

func (u *updating) container() string {
	u.t.Helper()
	out, err := u.Lab.Docker(u.t.Context(), "ps", "--quiet", "--filter", "label=com.docker.compose.project="+project(u.files()[".env"]),
		"--filter", "label=com.docker.compose.service=sensor").Output()
	labtest.Must(u.t, err)
	return strings.TrimSpace(string(out))
}

// greets connects to the honeypot from the sensor's host, as its DNAT would.
func (u *updating) greets() error {
	address := u.address()
	return u.On(host.Sensor, func() error {
		ctx, cancel := context.WithTimeout(u.t.Context(), 5*time.Second)
		defer cancel()
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(address, fmt.Sprint(u.Port)))
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
			return err
		}
		_, err = io.ReadFull(conn, make([]byte, 1))
		return err
	})
}

// keepsTheOperators wants all that is the operator's own as it was.
func (u *updating) keepsTheOperators() {
	u.t.Helper()
	name := project(u.files()[".env"])
	for what, args := range map[string][]string{
		"the other service, with its label": {"ps", "--quiet", "--filter", "label=com.docker.compose.project=" + name, "--filter", "label=com.example.kept=yes"},
		"the override's label":              {"ps", "--quiet", "--filter", "label=com.docker.compose.project=" + name, "--filter", "label=com.example.override=yes"},
		"the own network":                   {"network", "ls", "--quiet", "--filter", "name=" + name + "_own"},
	} {
		out, err := u.Lab.Docker(u.t.Context(), args...).Output()
		labtest.Must(u.t, err)
		if n := len(strings.Fields(string(out))); n != 1 {
			u.t.Errorf("%s is there %d times", what, n)
		}
	}
	out, err := u.Lab.Docker(u.t.Context(), "network", "ls", "--format", "{{.Name}}").Output()
	labtest.Must(u.t, err)
	if strings.Contains(string(out), "second_own") {
		u.t.Errorf("networks of the old project are left: %q", out)
	}
}

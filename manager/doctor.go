package main

import (
	"context"
	"slices"
	"time"

	"github.com/urfave/cli/v2"
	"go.uber.org/zap"

	"honeysens.org/dockersensor/manager/internal/control"
	"honeysens.org/dockersensor/manager/internal/doctor"
	"honeysens.org/dockersensor/manager/internal/hsapi"
	"honeysens.org/dockersensor/manager/internal/network"
)

func doctorCommand() *cli.Command {
	return &cli.Command{
		Name:  "doctor",
		Usage: "examine the sensor and its host, and say what to do; exit status 1 when there are problems",
		Description: "Each line is ok, a note (worth knowing, nothing is broken), a problem (something does not work, with\n" +
			"what to do below), or skipped. Nothing is changed.\n\n" +
			"When the sensor runs:     docker compose exec sensor manager doctor\n" +
			"Before its first start:   docker compose run --rm --no-deps --entrypoint manager sensor doctor --before",
		Flags: append(doctorPaths(),
			&cli.BoolFlag{Name: "before", Usage: "the sensor is not started yet: examine the host, and ask the server"},
			&cli.BoolFlag{Name: "json", Usage: "print JSON: findings, problems"},
		),
		Action: examine,
	}
}

// doctorPaths are the flags of run that say where to look.
func doctorPaths() []cli.Flag {
	wanted := []string{"config", "state-dir", "deploy-dir", "helper-socket", "docker-socket", "host-docker-socket", "control-socket", "iface"}
	var flags []cli.Flag
	for _, flag := range append(pathFlags(), behaviourFlags()...) {
		if slices.Contains(wanted, flag.Names()[0]) {
			flags = append(flags, flag)
		}
	}
	return flags
}

func examine(c *cli.Context) error {
	report := doctor.New(doctor.Config{
		Before: c.Bool("before"), Archive: c.String("config"), Interface: c.String("iface"),
		StateDir: c.String("state-dir"), DeployDir: c.String("deploy-dir"),
		DockerSocket: c.String("docker-socket"), HostDockerSocket: c.String("host-docker-socket"),
	}, manager{control.NewClient(c.String("control-socket"))},
		network.New(network.Config{Socket: c.String("helper-socket")}, zap.NewNop())).Examine(c.Context)
	write := func() error { return report.WriteText(c.App.Writer) }
	if c.Bool("json") {
		write = func() error { return printJSON(c.App.Writer, report) }
	}
	if err := write(); err != nil {
		return err
	}
	return report.Err()
}

// manager is the running one, as the doctor asks it.
type manager struct{ client *control.Client }

// Ask translates the status.
func (m manager) Ask(ctx context.Context) (*doctor.Running, error) {
	s, err := m.client.Status(ctx)
	if err != nil {
		return nil, err
	}
	running := &doctor.Running{
		Version: s.Version, Started: s.Started, Interface: s.Network.Observed.Interface.Name,
		NetworkError: s.Network.Error, CollectorError: s.Collector.Error,
		Server: doctor.Server{
			Address: s.Server.Address, Name: s.Server.Name, Route: s.Server.Route, LastPoll: s.Server.LastPoll,
			Error: s.Server.Error, Class: hsapi.Class(s.Server.ErrorClass),
			ClockOffset: time.Duration(s.Server.ClockOffset * float64(time.Second)),
		},
		Events: doctor.Events{
			Waiting: s.Events.Waiting, Quarantined: s.Events.Quarantined, Sent: s.Events.Sent, Lost: s.Events.Lost, Error: s.Events.Error,
		},
	}
	if s.Settings.State == "refused" {
		running.RefusedChange = s.Settings.Change + ": " + s.Settings.Reason
	}
	for _, service := range s.Services {
		running.Services = append(running.Services,
			doctor.Service{ID: service.ID, Label: service.Label, State: service.State, Reason: service.Reason})
	}
	return running, nil
}

package main

import (
	"slices"

	"github.com/urfave/cli/v2"

	"honeysens.org/dockersensor/manager/internal/doctor"
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
		HelperSocket: c.String("helper-socket"), DockerSocket: c.String("docker-socket"),
		HostDockerSocket: c.String("host-docker-socket"), ControlSocket: c.String("control-socket"),
	}).Examine(c.Context)
	write := func() error { return report.WriteText(c.App.Writer) }
	if c.Bool("json") {
		write = func() error { return printJSON(c.App.Writer, report) }
	}
	if err := write(); err != nil {
		return err
	}
	return report.Err()
}

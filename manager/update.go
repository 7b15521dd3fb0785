package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/urfave/cli/v2"

	"honeysens.org/dockersensor/manager/internal/control"
	"honeysens.org/dockersensor/manager/internal/update"
	"honeysens.org/dockersensor/shared/logging"
)

func updateCommand() *cli.Command {
	status := stateCommand("status", "show how far an update is",
		func(s *control.Status) any { return s.Update },
		func(s *control.Status, w io.Writer) error { return s.Update.WriteText(w, time.Now()) })
	return &cli.Command{
		Name:  "update",
		Usage: "look at updates, hold them back, and try a failed one again",
		Subcommands: []*cli.Command{
			status,
			orderCommand(control.UpdateRetry, "forget which firmware failed, and let updates begin"),
			orderCommand(control.UpdateHold, "begin no update until a retry; one that has begun goes on"),
			conductCommand(),
		},
	}
}

func orderCommand(order control.UpdateOrder, usage string) *cli.Command {
	return &cli.Command{
		Name:  string(order),
		Usage: usage,
		Flags: []cli.Flag{controlSocketFlag()},
		Action: func(c *cli.Context) error {
			return control.NewClient(c.String("control-socket")).OrderUpdate(c.Context, order)
		},
	}
}

// conductCommand is for the container that takes an update to its end.
func conductCommand() *cli.Command {
	return &cli.Command{
		Name:   "conduct",
		Usage:  "take the update of a deployment to its end; started by the sensor itself",
		Hidden: true,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "state-dir", Required: true, Usage: "state `DIR` of the deployment"},
			&cli.StringFlag{Name: "host-docker-socket", Value: "/var/run/docker.host.sock", Usage: "socket `FILE` of the host's Docker engine"},
		},
		Action: conduct,
	}
}

func conduct(c *cli.Context) error {
	level, _ := logging.ParseLevel("info")
	log, _, err := logging.New("conductor", level)
	if err != nil {
		return err
	}
	host, err := update.NewHost(c.String("host-docker-socket"))
	if err != nil {
		return err
	}
	defer host.Close()
	journal := update.NewJournal(filepath.Join(c.String("state-dir"), updateDir))
	err = update.NewConductor(journal, host, update.Tools{}, log).Run(c.Context)
	if errors.Is(err, context.Canceled) {
		return nil
	}
	if err != nil {
		return err
	}
	// The engine would start it again.
	if err := host.Dismiss(c.Context, filepath.Dir(c.String("state-dir"))); err != nil {
		return fmt.Errorf("end the conductor: %w", err)
	}
	return nil
}

// updateDir is the directory of updates in the state directory.
const updateDir = "update"

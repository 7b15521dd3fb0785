package main

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

	"honeysens.org/dockersensor/manager/internal/control"
)

func eventsCommand() *cli.Command {
	return &cli.Command{
		Name:  "events",
		Usage: "count the running sensor's events, and list those in quarantine",
		Description: "An event that the server refuses for its content is set aside, so that the others get through. It\n" +
			"stays in quarantine, listed here with the server's reason, until `manager events retry` sends it again.",
		Flags: []cli.Flag{
			controlSocketFlag(),
			&cli.BoolFlag{Name: "json", Usage: "print JSON"},
		},
		Action:      listEvents,
		Subcommands: []*cli.Command{retryCommand()},
	}
}

func listEvents(c *cli.Context) error {
	if c.NArg() > 0 {
		return fmt.Errorf("events: unknown command %q: want retry, or nothing", c.Args().First())
	}
	list, err := control.NewClient(c.String("control-socket")).Events(c.Context)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return printJSON(c.App.Writer, list)
	}
	return list.WriteText(c.App.Writer, time.Now())
}

func retryCommand() *cli.Command {
	return &cli.Command{
		Name:      "retry",
		Usage:     "send events in quarantine to the server again",
		ArgsUsage: "ID...",
		Description: "Useful after the server was repaired or upgraded. An event that it refuses again comes back\n" +
			"into quarantine under a new id.",
		Flags: []cli.Flag{
			controlSocketFlag(),
			&cli.BoolFlag{Name: "all", Usage: "all of them, instead of naming ids"},
			&cli.BoolFlag{Name: "json", Usage: "print JSON"},
		},
		Action: retryEvents,
	}
}

func retryEvents(c *cli.Context) error {
	retry := control.Retry{All: c.Bool("all")}
	for _, text := range c.Args().Slice() {
		id, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return fmt.Errorf("%.40q is not the id of an event: `manager events` lists them; flags come before ids", text)
		}
		retry.IDs = append(retry.IDs, id)
	}
	if retry.All == (len(retry.IDs) > 0) {
		return errors.New("events retry wants either the ids of events, which `manager events` lists, or --all")
	}
	n, err := control.NewClient(c.String("control-socket")).RetryEvents(c.Context, retry)
	if err != nil {
		return err
	}
	if err := printRetried(c, n); err != nil {
		return err
	}
	if missing := len(retry.IDs) - n; missing > 0 {
		return fmt.Errorf("%d of the named events are not in quarantine; `manager events` lists those that are", missing)
	}
	return nil
}

func printRetried(c *cli.Context, n int) error {
	if c.Bool("json") {
		return printJSON(c.App.Writer, map[string]int{"events": n})
	}
	_, err := fmt.Fprintf(c.App.Writer, "%d events go to the server again\n", n)
	return err
}

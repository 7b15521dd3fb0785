package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"honeysens.org/dockersensor/manager/internal/config"
	"honeysens.org/dockersensor/manager/internal/control"
)

func controlSocketFlag() cli.Flag {
	return &cli.StringFlag{
		Name: "control-socket", EnvVars: []string{"SENSOR_CONTROL_SOCKET"}, Value: "/run/manager/control.sock",
		Usage: "socket `FILE` on which the running manager answers the command line",
	}
}

func statusCommand() *cli.Command {
	return stateCommand("status", "show the state of the running sensor",
		func(s *control.Status) any { return s },
		func(s *control.Status, w io.Writer) error { return s.WriteText(w, time.Now()) })
}

func servicesCommand() *cli.Command {
	return stateCommand("services", "list the services of the running sensor",
		func(s *control.Status) any { return s.Services },
		func(s *control.Status, w io.Writer) error { return s.WriteServices(w) })
}

// stateCommand shows a part of the running sensor's state, as JSON or as text.
func stateCommand(name, usage string, part func(*control.Status) any, text func(*control.Status, io.Writer) error) *cli.Command {
	return &cli.Command{
		Name:  name,
		Usage: usage,
		Flags: []cli.Flag{
			controlSocketFlag(),
			&cli.BoolFlag{Name: "json", Usage: "print JSON"},
		},
		Action: func(c *cli.Context) error {
			status, err := control.NewClient(c.String("control-socket")).Status(c.Context)
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return printJSON(c.App.Writer, part(status))
			}
			return text(status, c.App.Writer)
		},
	}
}

func logLevelCommand() *cli.Command {
	return &cli.Command{
		Name:      "log-level",
		Usage:     "set the log level of the running manager until it restarts",
		ArgsUsage: "debug|info|warn|error",
		Flags:     []cli.Flag{controlSocketFlag()},
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return errors.New("log-level wants one of debug, info, warn and error")
			}
			return control.NewClient(c.String("control-socket")).SetLogLevel(c.Context, c.Args().First())
		},
	}
}

func pollCommand() *cli.Command {
	return &cli.Command{
		Name:  "poll",
		Usage: "have the running manager ask the server now, instead of at the next interval",
		Flags: []cli.Flag{controlSocketFlag()},
		Action: func(c *cli.Context) error {
			return control.NewClient(c.String("control-socket")).Poll(c.Context)
		},
	}
}

func metricsCommand() *cli.Command {
	return &cli.Command{
		Name:  "metrics",
		Usage: "print the running sensor's metrics, in the text format of Prometheus",
		Flags: []cli.Flag{controlSocketFlag()},
		Action: func(c *cli.Context) error {
			text, err := control.NewClient(c.String("control-socket")).Metrics(c.Context)
			if err != nil {
				return err
			}
			_, err = c.App.Writer.Write(text)
			return err
		},
	}
}

func configCommand() *cli.Command {
	return &cli.Command{
		Name:  "config",
		Usage: "look at configuration archives",
		Subcommands: []*cli.Command{{
			Name:      "show",
			Usage:     "print what a configuration archive says; unset values are null in JSON, and bare keys in the text",
			ArgsUsage: "FILE",
			Flags:     []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print JSON: section, key, text"}},
			Action:    showConfig,
		}},
	}
}

func showConfig(c *cli.Context) error {
	if c.NArg() != 1 {
		return errors.New("config show wants the configuration archive's file name, after the flags")
	}
	archive, err := config.Load(c.Args().First())
	if err != nil {
		return err
	}
	if c.Bool("json") {
		_, err = fmt.Fprintf(c.App.Writer, "%s\n", archive.JSON())
		return err
	}
	_, err = io.WriteString(c.App.Writer, archive.Text())
	return err
}

func printJSON(w io.Writer, value any) error {
	out := json.NewEncoder(w)
	out.SetIndent("", "  ")
	return out.Encode(value)
}

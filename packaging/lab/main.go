// Command lab puts up a network of attacker, sensor host and server on this
// machine, deploys a sensor in it, and takes everything away again. Its
// arguments are relative to the checkout, where it is run.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/urfave/cli/v2"

	"honeysens.org/dockersensor/packaging/lab/host"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := app().RunContext(ctx, os.Args)
	stop()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(max(exit.ExitCode(), 1))
	case err != nil:
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

func app() *cli.App {
	return &cli.App{
		Name:           "lab",
		Usage:          "a network of attacker, sensor host and server on this machine",
		ExitErrHandler: func(*cli.Context, error) {},
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "prefix", Value: "lab", Usage: "begin the names of the namespaces with `NAME`"},
			&cli.StringFlag{Name: "dir", Value: "out/lab", Usage: "keep everything in `DIR`"},
			&cli.StringFlag{Name: "runtime", Value: "out/bin/runcshim", Usage: "container runtime `FILE` of the lab"},
			&cli.StringFlag{Name: "compose", Value: "out/bin/docker-compose", Usage: "Docker Compose in `FILE`"},
		},
		Commands: []*cli.Command{
			{Name: "up", Usage: "put up the lab, without a sensor", Action: withLab((*host.Lab).Up)},
			{Name: "down", Usage: "remove every trace of the lab", Action: withLab((*host.Lab).Down)},
			demoCommand(),
			deployCommand(),
			execCommand(),
			pageCommand(),
			{
				Name: "docker", Usage: "run docker with the engine of the sensor host", ArgsUsage: "ARGUMENT...", SkipFlagParsing: true,
				Action: func(c *cli.Context) error {
					lab, err := labOf(c)
					if err != nil {
						return err
					}
					return attached(lab.Docker(c.Context, c.Args().Slice()...))
				},
			},
			engineCommand(),
		},
	}
}

func labOf(c *cli.Context) (*host.Lab, error) {
	return host.New(host.Config{
		Prefix: c.String("prefix"), Dir: c.String("dir"), Runtime: c.String("runtime"), Compose: c.String("compose"),
	})
}

func withLab(do func(*host.Lab, context.Context) error) cli.ActionFunc {
	return func(c *cli.Context) error {
		lab, err := labOf(c)
		if err != nil {
			return err
		}
		return do(lab, c.Context)
	}
}

func deployCommand() *cli.Command {
	return &cli.Command{
		Name: "deploy", Usage: "deploy a sensor by the guide", ArgsUsage: "ARCHIVE CONFIGURATION",
		Flags: []cli.Flag{&cli.StringFlag{Name: "compose-file", Usage: "deploy with `FILE` instead of the archive's compose file"}},
		Action: func(c *cli.Context) error {
			lab, err := labOf(c)
			if err != nil {
				return err
			}
			if c.NArg() != 2 {
				return errors.New("deploy wants the archive of a release and a configuration archive")
			}
			dir, err := lab.Deploy(c.Context, host.Deployment{
				Archive: c.Args().Get(0), Config: c.Args().Get(1), Compose: c.String("compose-file"),
			})
			if err != nil {
				return err
			}
			fmt.Fprintln(c.App.Writer, dir)
			return nil
		},
	}
}

func execCommand() *cli.Command {
	return &cli.Command{
		Name: "exec", Usage: "run a command on attacker, sensor, server or lan", ArgsUsage: "HOST COMMAND [ARGUMENT...]", SkipFlagParsing: true,
		Action: func(c *cli.Context) error {
			lab, err := labOf(c)
			if err != nil {
				return err
			}
			if c.NArg() < 2 {
				return errors.New("exec wants a host and a command")
			}
			args := c.Args().Slice()
			return attached(lab.Command(c.Context, host.Host(args[0]), args[1], args[2:]...))
		},
	}
}

func engineCommand() *cli.Command {
	return &cli.Command{
		Name: "with-engine", Usage: "run a command with a Docker engine of its own that has no network", ArgsUsage: "COMMAND [ARGUMENT...]",
		SkipFlagParsing: true,
		Action: func(c *cli.Context) error {
			if c.NArg() < 1 {
				return errors.New("with-engine wants a command")
			}
			// The kernel ends the engine with the thread that started it.
			runtime.LockOSThread()
			engine, err := host.StartBuildEngine(c.Context, c.String("dir"), c.String("runtime"))
			if err != nil {
				return err
			}
			args := c.Args().Slice()
			cmd := exec.CommandContext(c.Context, args[0], args[1:]...)
			cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+engine.Socket(), "BUILD_ENGINE=private")
			return errors.Join(attached(cmd), engine.Stop())
		},
	}
}

func attached(cmd *exec.Cmd) error {
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd.Run()
}

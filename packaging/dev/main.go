package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/urfave/cli/v2"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	err := app().RunContext(ctx, os.Args)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "dev:", err)
		os.Exit(1)
	}
}

func app() *cli.App {
	return &cli.App{
		Name:            "dev",
		Usage:           "a development sensor that follows the sources",
		Description:     "It is run in the checkout, by make.",
		HideHelpCommand: true,
		ExitErrHandler:  func(*cli.Context, error) {},
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "revision", Value: "dev", Usage: "build programs and image as `REVISION`"},
			&cli.StringFlag{Name: "image", EnvVars: []string{"DEV_IMAGE"}, Usage: "start `IMAGE` instead of building one"},
			&cli.StringFlag{Name: "conf", Value: "packaging/conf", Usage: "`DIR` that holds the configuration archive"},
			&cli.BoolFlag{Name: "down", Usage: "only remove what an earlier development sensor left"},
		},
		Action: run,
	}
}

func run(c *cli.Context) error {
	ctx := c.Context
	root, err := os.Getwd()
	if err != nil {
		return fmt.Errorf("find the checkout: %w", err)
	}
	// The build has its directory by a relative path: where it runs in a container,
	// the checkout is elsewhere.
	programs := &programs{root: root, revision: c.String("revision"), built: "out/dev/build", dir: filepath.Join(root, "out/dev/programs")}
	image := c.String("image")
	sensor := &sensor{
		compose: filepath.Join(root, "out/bin/docker-compose"), file: filepath.Join(root, "packaging/dev/docker-compose.yml"),
		image: image, programs: programs.dir, sources: root, screen: c.App.Writer,
	}
	if c.Bool("down") {
		// The compose file wants a name, which plays no part.
		sensor.image = "none"
		return sensor.remove(ctx)
	}
	archive, err := configuration(c.String("conf"))
	if err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, "docker", "version", "--format", "{{.Server.Version}}").CombinedOutput(); err != nil {
		return fmt.Errorf("no Docker engine answers; start it, or set DOCKER_HOST: %s", out)
	}
	if image == "" {
		sensor.image = "honeysens/sensorx86:" + programs.revision
		if err := programs.make(ctx, "image"); err != nil {
			return err
		}
	}
	if _, err := programs.build(ctx); err != nil {
		return err
	}
	err = follow(ctx, sensor, programs, archive)
	fmt.Fprintln(c.App.Writer, "removing the development sensor")
	err = errors.Join(err, sensor.remove(context.WithoutCancel(ctx)))
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// configuration returns the only configuration archive in a directory.
func configuration(dir string) (string, error) {
	found, err := filepath.Glob(filepath.Join(dir, "*.tar.gz"))
	if err != nil {
		return "", fmt.Errorf("look for a configuration archive: %w", err)
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return "", fmt.Errorf("there is no configuration archive in %[1]s. Register a sensor at your HoneySens server, download its archive, "+
			"and put it there:\n\n    mkdir -p %[1]s && cp s1.tar.gz %[1]s/\n\n(`make demo` needs none: it brings its own server.)", dir)
	}
	return "", fmt.Errorf("there are %d configuration archives in %s, want one: %q", len(found), dir, found)
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	// restartWithin is how long a daemon may take to end and start again.
	restartWithin = 30 * time.Second
	// endGrace is more than the sensor needs for a clean end.
	endGrace = "30"
)

// sensor is the development sensor in the engine that the docker command talks
// to.
type sensor struct {
	compose, file            string
	image, programs, sources string
	screen                   io.Writer

	container string
}

// start makes the sensor, gives it its configuration and starts it.
func (s *sensor) start(ctx context.Context, archive string) error {
	if err := s.remove(ctx); err != nil {
		return err
	}
	steps := [][]string{
		{"create", "--quiet-pull"},
		{"cp", archive, "sensor:/etc/manager/"},
		{"start"},
	}
	for _, args := range steps {
		if out, err := s.command(ctx, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("start the development sensor: compose %s: %w: %s", args[0], err, out)
		}
	}
	out, err := s.command(ctx, "ps", "--all", "--quiet", "sensor").Output()
	s.container = strings.TrimSpace(string(out))
	if err != nil || s.container == "" {
		return fmt.Errorf("find the container of the development sensor: %w", errors.Join(err, errors.New(s.container)))
	}
	return nil
}

// remove takes the sensor away with everything of it. It is no error when there
// is none. A Ctrl-C at the terminal does not reach it.
func (s *sensor) remove(ctx context.Context) error {
	cmd := s.command(ctx, "down", "--volumes", "--remove-orphans", "--timeout", endGrace)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("remove the development sensor: %w: %s", err, out)
	}
	return nil
}

func (s *sensor) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, s.compose, append([]string{"--project-name", "honeysens-dev", "--file", s.file, "--progress", "quiet"}, args...)...)
	cmd.Env = append(os.Environ(), "DEV_IMAGE="+s.image, "DEV_PROGRAMS="+s.programs, "DEV_SOURCES="+s.sources)
	return cmd
}

// log shows what the sensor says until ctx ends. The log of a container ends
// with each of its runs.
func (s *sensor) log(ctx context.Context) error {
	since := "0"
	for ctx.Err() == nil {
		cmd := exec.CommandContext(ctx, "docker", "logs", "--follow", "--since", since, s.container)
		cmd.Stdout, cmd.Stderr = s.screen, s.screen
		if err := cmd.Run(); err != nil && ctx.Err() == nil {
			return fmt.Errorf("follow the log of the development sensor: %w", err)
		}
		since = time.Now().Format(time.RFC3339Nano)
		if err := s.running(ctx); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// running waits for a container that starts again, and fails for one that has
// ended.
func (s *sensor) running(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, restartWithin)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		out, err := exec.CommandContext(ctx, "docker", "inspect", "--format", "{{.State.Running}}", s.container).Output()
		if err == nil && strings.TrimSpace(string(out)) == "true" {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.New("the development sensor has ended by itself")
		}
	}
}

// bring brings programs that changed into effect and tells what it did.
func (s *sensor) bring(ctx context.Context, changed []string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, restartWithin)
	defer cancel()
	if slices.Contains(changed, "init") {
		if out, err := exec.CommandContext(ctx, "docker", "restart", "--time", endGrace, s.container).CombinedOutput(); err != nil {
			return "", fmt.Errorf("restart the sensor: %w: %s", err, out)
		}
		return "the sensor restarted", nil
	}
	var done []string
	for _, daemon := range []string{"nethelper", "manager"} {
		if !slices.Contains(changed, daemon) {
			continue
		}
		// -wr: back when it has started again.
		args := []string{"exec", s.container, "s6-svc", "-wr", "-T", fmt.Sprint(restartWithin.Milliseconds()), "-r", "/etc/sensor/services/" + daemon}
		if out, err := exec.CommandContext(ctx, "docker", args...).CombinedOutput(); err != nil {
			return "", fmt.Errorf("restart %s: %w: %s", daemon, err, out)
		}
		done = append(done, daemon+" restarted")
	}
	if slices.Contains(changed, "offload") {
		done = append(done, "offload serves the next honeypot")
	}
	return strings.Join(done, ", "), nil
}

package update

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// maxComplaint bounds what is told of a program's output, in bytes.
const maxComplaint = 600

// Tools are the programs of the image that the conductor starts.
type Tools struct{}

// Up starts services of a deployment under a project name: the sensor alone, or
// all. A container that is there and right stays.
func (Tools) Up(ctx context.Context, d Deployment, project, previous string, all bool) error {
	args := []string{"--project-name", project, "--project-directory", d.Dir, "--ansi", "never", "--progress", "quiet"}
	for _, file := range append(d.Files, overrides(d)...) {
		args = append(args, "--file", file)
	}
	args = append(args, "up", "--detach", "--pull", "never")
	if !all {
		args = append(args, "--no-deps", d.Service)
	}
	cmd := exec.CommandContext(ctx, "docker-compose", args...)
	cmd.Dir = d.Dir
	cmd.Env = append(conductorEnv(Deployment{Dir: d.Dir, Env: os.Environ()}, previous), "COMPOSE_PROJECT_NAME="+project)
	return run(cmd)
}

// overrides are the files that compose would read besides the one it finds.
func overrides(d Deployment) []string {
	if len(d.Files) != 1 {
		return nil
	}
	for _, name := range []string{"docker-compose.override.yml", "docker-compose.override.yaml"} {
		file := filepath.Join(d.Dir, name)
		if _, err := os.Stat(file); err == nil && file != d.Files[0] {
			return []string{file}
		}
	}
	return nil
}

// CleanUp removes what a killed sensor has left in the host's network.
func (Tools) CleanUp(ctx context.Context, container string) error {
	return run(exec.CommandContext(ctx, "nethelper", "cleanup", "--sensor-id", container))
}

func run(cmd *exec.Cmd) error {
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	text := strings.TrimSpace(string(out))
	if len(text) > maxComplaint {
		text = text[len(text)-maxComplaint:]
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, text)
	}
	return err
}

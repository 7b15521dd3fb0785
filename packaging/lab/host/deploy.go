package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Deployment is what an operator brings: the archive of a release, the sensor's
// configuration archive, and what is changed in docker-compose.yml.
type Deployment struct {
	Archive string // HoneySens-Firmware-dockerx86-<revision>.tar.gz
	Config  string // s<id>.tar.gz
	// Compose replaces the archive's docker-compose.yml where it is given, such
	// as by one of an older release.
	Compose string
	// Edit replaces texts in docker-compose.yml; each must be there.
	Edit map[string]string
	// Profile is the COMPOSE_FILE that is put into .env, "" for none.
	Profile string
	// Name is that of the deployment directory, "sensor" when empty; Project that of
	// the compose project in its .env, as it is in the archive when empty.
	Name, Project string
	// Files are further files of the deployment directory.
	Files map[string]string
}

// Deploy deploys a sensor on the sensor host as the guide in the archive says,
// and returns its deployment directory.
func (l *Lab) Deploy(ctx context.Context, d Deployment) (string, error) {
	dir, err := l.Prepare(ctx, d)
	if err != nil {
		return "", err
	}
	return dir, l.StartSensor(ctx, dir, d.Config)
}

// Prepare does what the guide says up to the start.
func (l *Lab) Prepare(ctx context.Context, d Deployment) (string, error) {
	dir := filepath.Join(l.cfg.Dir, cmp.Or(d.Name, "sensor"))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make deployment directory: %w", err)
	}
	if err := output(exec.CommandContext(ctx, "tar", "-xzf", d.Archive, "-C", dir)); err != nil {
		return "", fmt.Errorf("unpack archive: %w", err)
	}
	if err := adjust(dir, d); err != nil {
		return "", err
	}
	if err := choose(filepath.Join(dir, ".env"), d.Profile); err != nil {
		return "", err
	}
	if err := output(l.Docker(ctx, "load", "--input", filepath.Join(dir, "firmware.img"))); err != nil {
		return "", fmt.Errorf("load image: %w", err)
	}
	return dir, configure(dir, d.Config)
}

func configure(dir, archive string) error {
	if err := copyFile(archive, filepath.Join(dir, "conf", filepath.Base(archive))); err != nil {
		return fmt.Errorf("copy configuration: %w", err)
	}
	return nil
}

// StartSensor starts a sensor that was prepared, with a configuration archive.
func (l *Lab) StartSensor(ctx context.Context, dir, archive string) error {
	if err := configure(dir, archive); err != nil {
		return err
	}
	if err := output(l.ComposeCommand(ctx, dir, "up", "-d")); err != nil {
		return fmt.Errorf("start sensor: %w", err)
	}
	return nil
}

func adjust(dir string, d Deployment) error {
	if d.Project != "" {
		if err := os.WriteFile(filepath.Join(dir, ".env"), []byte("COMPOSE_PROJECT_NAME="+d.Project), 0o644); err != nil {
			return fmt.Errorf("write .env: %w", err)
		}
	}
	for name, text := range d.Files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	path := filepath.Join(dir, "docker-compose.yml")
	source := path
	if d.Compose != "" {
		source = d.Compose
	}
	text, err := os.ReadFile(source)
	if err != nil {
		return fmt.Errorf("read compose file: %w", err)
	}
	compose := string(text)
	for from, to := range d.Edit {
		if !strings.Contains(compose, from) {
			return fmt.Errorf("%s does not hold %q", source, from)
		}
		compose = strings.ReplaceAll(compose, from, to)
	}
	if err := os.WriteFile(path, []byte(compose), 0o644); err != nil {
		return fmt.Errorf("write compose file: %w", err)
	}
	return nil
}

// choose takes the comment sign from the line of .env that names a profile.
func choose(path, profile string) error {
	if profile == "" {
		return nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read .env: %w", err)
	}
	line := "\nCOMPOSE_FILE=" + profile + "\n"
	chosen := strings.Replace(string(text), strings.Replace(line, "\n", "\n#", 1), line, 1)
	if chosen == string(text) {
		return fmt.Errorf("%s has no line for the profile %s", path, profile)
	}
	if err := os.WriteFile(path, []byte(chosen), 0o644); err != nil {
		return fmt.Errorf("write .env: %w", err)
	}
	return nil
}

// Docker returns a command for the engine of the sensor host.
func (l *Lab) Docker(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "docker", args...)
	cmd.Env = append(os.Environ(),
		"DOCKER_HOST=unix://"+filepath.Join(l.engineDir(), "docker.sock"),
		"DOCKER_CONFIG="+l.dockerConfig(),
	)
	return cmd
}

// ComposeCommand returns a compose command for the deployment in a directory.
func (l *Lab) ComposeCommand(ctx context.Context, dir string, args ...string) *exec.Cmd {
	cmd := l.Docker(ctx, append([]string{"compose"}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(cmd.Env, "HOST_PWD="+dir)
	return cmd
}

func (l *Lab) dockerConfig() string { return filepath.Join(l.cfg.Dir, "docker") }

// installCompose gives the docker command its compose plug-in, for the lab only.
func (l *Lab) installCompose() error {
	plugins := filepath.Join(l.dockerConfig(), "cli-plugins")
	if err := os.MkdirAll(plugins, 0o755); err != nil {
		return fmt.Errorf("make directory of docker plug-ins: %w", err)
	}
	if err := os.Symlink(l.cfg.Compose, filepath.Join(plugins, "docker-compose")); err != nil {
		return fmt.Errorf("install compose: %w", err)
	}
	return nil
}

func copyFile(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = io.Copy(out, in)
	return err
}

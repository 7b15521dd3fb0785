package update

import (
	"context"
	"fmt"
	"strings"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
)

// Spawn starts the conductor of an update, unless it is there. It is of the old
// image, which is known to work, and of no compose project, so that nothing that
// happens to either sensor ends it. The engine starts it again until it removes
// itself.
func (h *Host) Spawn(ctx context.Context, r *Record) error {
	name := r.To.Project + "-conductor"
	d := r.Deployment
	config := &container.Config{
		Image: r.From.Image, Env: conductorEnv(d, r.From.Project), WorkingDir: d.Dir,
		Entrypoint: []string{"manager", "update", "conduct", "--state-dir", d.Dir + "/state"},
		Labels:     map[string]string{labelConductorOf: d.Dir},
	}
	host := &container.HostConfig{
		// The directory is where it is on the host: compose writes its path, and
		// those relative to it, into the new container.
		Binds:         []string{d.Dir + ":" + d.Dir, d.Socket + ":" + mountSocket},
		NetworkMode:   "none",
		RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyUnlessStopped},
		LogConfig:     container.LogConfig{Type: "json-file", Config: map[string]string{"max-size": "1m", "max-file": "1"}},
	}
	if d.HostNetwork {
		// It removes what a killed sensor leaves in the host's network.
		host.NetworkMode, host.Privileged = "host", true
	}
	created, err := h.client.ContainerCreate(ctx, config, host, nil, nil, name)
	id := created.ID
	switch {
	case cerrdefs.IsConflict(err):
		id = name
	case err != nil:
		return fmt.Errorf("make the conductor: %w", err)
	}
	if err := h.client.ContainerStart(ctx, id, container.StartOptions{}); err != nil {
		return fmt.Errorf("start the conductor: %w", err)
	}
	return nil
}

// conductorEnv is the sensor's own environment, since compose files pass
// variables on that were set when the operator started the sensor.
func conductorEnv(d Deployment, project string) []string {
	var env []string
	for _, entry := range d.Env {
		name, _, _ := strings.Cut(entry, "=")
		switch name {
		case "HOST_PWD", "PREV_PREFIX", "COMPOSE_PROJECT_NAME":
		default:
			env = append(env, entry)
		}
	}
	return append(env, "HOST_PWD="+d.Dir, "PREV_PREFIX="+project, "DOCKER_HOST=unix://"+mountSocket)
}

// Dismiss removes the conductors of a deployment.
func (h *Host) Dismiss(ctx context.Context, dir string) error {
	list, err := h.client.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", labelConductorOf+"="+dir))})
	if err != nil {
		return fmt.Errorf("list conductors: %w", err)
	}
	for _, c := range list {
		// The image declares a volume, so there is one.
		err := h.client.ContainerRemove(ctx, c.ID, container.RemoveOptions{Force: true, RemoveVolumes: true})
		if err != nil && !cerrdefs.IsNotFound(err) && !cerrdefs.IsConflict(err) {
			return fmt.Errorf("remove the conductor: %w", err)
		}
	}
	return nil
}

package update

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/client"

	"honeysens.org/dockersensor/shared/dockerload"
)

// Labels: those of compose, and the one of our conductors.
const (
	labelProject     = "com.docker.compose.project"
	labelService     = "com.docker.compose.service"
	labelFiles       = "com.docker.compose.project.config_files"
	labelOneOff      = "com.docker.compose.oneoff"
	labelConductorOf = "org.honeysens.sensor.conductor"
)

// Where container and deployment meet, in every compose file since the first.
const (
	mountDeploy = "/mnt"
	mountSocket = "/var/run/docker.host.sock"
)

// ErrNoHost says that the engine of the host cannot be asked.
var ErrNoHost = errors.New("the host's Docker engine cannot be asked")

// Host is the engine that runs the sensor.
type Host struct {
	client *client.Client
	// self is the id of the container that this process is in, selfErr why it is
	// not known. It is read at once: a confined process cannot.
	self    string
	selfErr error
}

// NewHost returns the engine behind a socket, which need not be there yet.
func NewHost(socket string) (*Host, error) {
	c, err := client.NewClientWithOpts(client.WithHost("unix://"+socket), client.WithAPIVersionNegotiation())
	if err != nil {
		return nil, fmt.Errorf("client of the host's engine: %w", err)
	}
	h := &Host{client: c}
	h.self, h.selfErr = ownContainer()
	return h, nil
}

// Close ends idle connections.
func (h *Host) Close() error { return h.client.Close() }

// ownID finds a container's id in its own mountinfo: Docker mounts /etc/hostname
// and two more files from .../containers/ID/ on the host.
var ownID = regexp.MustCompile(`/containers/([0-9a-f]{64})/[^ ]* /etc/(?:hostname|hosts|resolv\.conf) `)

func ownContainer() (string, error) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("own container id: %w", err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, 4<<20))
	if err != nil {
		return "", fmt.Errorf("own container id: %w", err)
	}
	found := ownID.FindSubmatch(text)
	if found == nil {
		return "", errors.New("own container id: this is not a Docker container")
	}
	return string(found[1]), nil
}

// Self describes the sensor that this process is a part of.
func (h *Host) Self(ctx context.Context) (Sensor, Deployment, error) {
	id := h.self
	if h.selfErr != nil {
		return Sensor{}, Deployment{}, h.selfErr
	}
	details, err := h.client.ContainerInspect(ctx, id)
	if err != nil {
		return Sensor{}, Deployment{}, fmt.Errorf("%w: %w", ErrNoHost, err)
	}
	if details.Config == nil || details.HostConfig == nil {
		return Sensor{}, Deployment{}, errors.New("the host's engine does not describe this container")
	}
	labels := details.Config.Labels
	sensor := Sensor{Project: labels[labelProject], Image: details.Image, Container: id}
	d := Deployment{
		Service: labels[labelService], Env: details.Config.Env, HostNetwork: details.HostConfig.NetworkMode.IsHost(),
	}
	for _, m := range details.Mounts {
		switch m.Destination {
		case mountDeploy:
			d.Dir = m.Source
		case mountSocket, "/run/docker.host.sock":
			d.Socket = m.Source
		}
	}
	d.Files = composeFiles(labels[labelFiles], d.Dir)
	if sensor.Project == "" || d.Dir == "" || d.Socket == "" {
		return Sensor{}, Deployment{}, errors.New("the sensor was not started by compose with its directory and the engine's socket mounted")
	}
	return sensor, d, d.validate()
}

// composeFiles returns the files that compose was started with, as far as they
// are in the deployment directory.
func composeFiles(label, dir string) []string {
	var files []string
	for _, file := range strings.Split(label, ",") {
		if inside, err := filepath.Rel(dir, file); err == nil && filepath.IsLocal(inside) && inside != "." {
			files = append(files, filepath.Join(dir, inside))
		}
	}
	if len(files) == 0 {
		files = []string{filepath.Join(dir, "docker-compose.yml")}
	}
	return files
}

// Load gives the engine an image as `docker save` writes it, and returns its id.
// The layers it has to have are those of its configuration.
func (h *Host) Load(ctx context.Context, name string, layers []string, archive io.Reader) (string, error) {
	err := dockerload.Load(ctx, h.client, archive)
	if client.IsErrConnectionFailed(err) {
		return "", fmt.Errorf("%w: %w", ErrNoHost, err)
	}
	if err != nil {
		return "", fmt.Errorf("load into the host's engine: %w", err)
	}
	found, err := h.client.ImageInspect(ctx, name)
	if err != nil {
		return "", fmt.Errorf("look at the loaded image: %w", err)
	}
	if !slices.Equal(found.RootFS.Layers, layers) {
		return "", errors.New("the host's engine has made other layers of the image")
	}
	// Only now: a power cut must not leave an image whose files are empty.
	if err := h.Flush(); err != nil {
		return "", fmt.Errorf("load into the host's engine: %w", err)
	}
	return found.ID, nil
}

// Flush waits until the disk has what the engine has written.
func (h *Host) Flush() error { return Flush() }

// RemoveImage takes an image away that no container uses.
func (h *Host) RemoveImage(ctx context.Context, id string) error {
	_, err := h.client.ImageRemove(ctx, id, image.RemoveOptions{Force: false, PruneChildren: true})
	if err != nil && !cerrdefs.IsNotFound(err) && !cerrdefs.IsConflict(err) {
		return fmt.Errorf("remove image %.20s: %w", id, err)
	}
	return nil
}

// HasImage tells whether the engine has an image.
func (h *Host) HasImage(ctx context.Context, id string) (bool, error) {
	_, err := h.client.ImageInspect(ctx, id)
	if cerrdefs.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for image %.20s: %w", id, err)
	}
	return true, nil
}

// State is what the engine says of a project's sensor.
type State struct {
	// ID is "" when there is no container.
	ID      string
	Running bool
	// Restarts counts the engine's own.
	Restarts int
	ExitCode int
}

// Sensor finds the sensor of a project in a deployment directory.
func (h *Host) Sensor(ctx context.Context, project string, d Deployment) (State, error) {
	list, err := h.members(ctx, project)
	if err != nil {
		return State{}, err
	}
	for _, c := range list {
		if c.Labels[labelService] != d.Service || c.Labels[labelOneOff] == "True" || !isOf(c, d.Dir) {
			continue
		}
		details, err := h.client.ContainerInspect(ctx, c.ID)
		if cerrdefs.IsNotFound(err) {
			return State{}, nil
		}
		if err != nil {
			return State{}, fmt.Errorf("inspect container %.12s: %w", c.ID, err)
		}
		state := State{ID: c.ID, Restarts: details.RestartCount}
		if details.State != nil {
			state.Running, state.ExitCode = details.State.Running && !details.State.Restarting, details.State.ExitCode
		}
		return state, nil
	}
	return State{}, nil
}

func (h *Host) members(ctx context.Context, project string) ([]container.Summary, error) {
	list, err := h.client.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", labelProject+"="+project))})
	if err != nil {
		return nil, fmt.Errorf("list containers of project %s: %w", project, err)
	}
	return list, nil
}

// isOf tells whether a container is deployed in a directory: another sensor on
// this host may have any name.
func isOf(c container.Summary, dir string) bool {
	return slices.ContainsFunc(c.Mounts, func(m container.MountPoint) bool { return m.Destination == mountDeploy && m.Source == dir })
}

// Start starts a container that was stopped.
func (h *Host) Start(ctx context.Context, id string) error {
	if err := h.client.ContainerStart(ctx, id, container.StartOptions{}); err != nil {
		return fmt.Errorf("start container %.12s: %w", id, err)
	}
	return nil
}

// Stop ends a container; it does not come back by itself.
func (h *Host) Stop(ctx context.Context, id string) error {
	if err := h.client.ContainerStop(ctx, id, container.StopOptions{}); err != nil && !cerrdefs.IsNotFound(err) {
		return fmt.Errorf("stop container %.12s: %w", id, err)
	}
	return nil
}

// Kill ends a container at once.
func (h *Host) Kill(ctx context.Context, id string) error {
	none := 0
	if err := h.client.ContainerStop(ctx, id, container.StopOptions{Timeout: &none}); err != nil && !cerrdefs.IsNotFound(err) {
		return fmt.Errorf("kill container %.12s: %w", id, err)
	}
	return nil
}

// RemoveProject removes the containers and networks of a sensor's project, and
// the volumes that its sensor used. It does nothing when the project's sensor is
// of another directory. Volumes of other services stay: nobody else knows what
// is in them.
func (h *Host) RemoveProject(ctx context.Context, project string, d Deployment) error {
	list, err := h.members(ctx, project)
	if err != nil {
		return err
	}
	var volumes []string
	ours := len(list) == 0
	for _, c := range list {
		if isOf(c, d.Dir) {
			ours = true
			volumes = append(volumes, volumesOf(c)...)
		}
	}
	if !ours {
		return nil
	}
	for _, c := range list {
		if err := h.removeContainer(ctx, c.ID); err != nil {
			return err
		}
	}
	return errors.Join(h.removeVolumes(ctx, project, volumes), h.removeNetworks(ctx, project))
}

func volumesOf(c container.Summary) []string {
	var names []string
	for _, m := range c.Mounts {
		if m.Type == "volume" && m.Name != "" {
			names = append(names, m.Name)
		}
	}
	return names
}

func (h *Host) removeContainer(ctx context.Context, id string) error {
	// A clean end first: the sensor takes back what it changed on the host.
	_ = h.Stop(ctx, id)
	err := h.client.ContainerRemove(ctx, id, container.RemoveOptions{Force: true, RemoveVolumes: true})
	if err != nil && !cerrdefs.IsNotFound(err) && !cerrdefs.IsConflict(err) {
		return fmt.Errorf("remove container %.12s: %w", id, err)
	}
	return nil
}

// removeVolumes removes volumes of the project only: those that it was given
// from outside stay. After a restart in between, the name is all that is known.
func (h *Host) removeVolumes(ctx context.Context, project string, names []string) error {
	var errs []error
	for _, name := range append(names, project+"_docker_overlay") {
		found, err := h.client.VolumeInspect(ctx, name)
		if err != nil || found.Labels[labelProject] != project {
			continue
		}
		if err := h.client.VolumeRemove(ctx, name, false); err != nil && !cerrdefs.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("remove volume %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

func (h *Host) removeNetworks(ctx context.Context, project string) error {
	list, err := h.client.NetworkList(ctx, network.ListOptions{Filters: filters.NewArgs(filters.Arg("label", labelProject+"="+project))})
	if err != nil {
		return fmt.Errorf("list networks of project %s: %w", project, err)
	}
	var errs []error
	for _, n := range list {
		if err := h.client.NetworkRemove(ctx, n.ID); err != nil && !cerrdefs.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("remove network %s: %w", n.Name, err))
		}
	}
	return errors.Join(errs...)
}

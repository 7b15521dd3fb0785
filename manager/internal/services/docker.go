package services

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/client"
	"github.com/docker/docker/pkg/stdcopy"
	"github.com/docker/go-units"
	"go.uber.org/zap"
)

// The labels of our containers.
const (
	labelRole    = "org.honeysens.sensor.role"
	labelService = "org.honeysens.sensor.service"
	labelConfig  = "org.honeysens.sensor.config"
	labelImage   = "org.honeysens.sensor.image"
	// labelReadOnly of an image says that its program writes no file.
	labelReadOnly = "org.honeysens.read-only"
)

const (
	// stopSeconds is what a honeypot gets to report what it is about to.
	stopSeconds = 2
	// oomScore makes the kernel take a honeypot before the sensor when the
	// host runs out of memory (proc(5), oom_score_adj).
	oomScore = 500
	// maxFiles bounds the open files of a honeypot: recon holds 5,000 connections.
	maxFiles = 16384
	// maxLogTail bounds what is read of a container's output, in bytes.
	maxLogTail = 64 << 10
)

// Docker is the Engine of a real Docker engine.
type Docker struct {
	client *client.Client
	log    *zap.Logger

	// mu guards negotiated.
	mu         sync.Mutex
	negotiated bool
}

// NewDocker returns the engine behind the client, which negotiates its version.
func NewDocker(client *client.Client, log *zap.Logger) *Docker {
	return &Docker{client: client, log: log}
}

// negotiate agrees on a version with the engine before the first call of any
// kind: the calls read the version without the lock under which the client
// negotiates it (docker client 28.5).
func (d *Docker) negotiate(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.negotiated {
		return nil
	}
	if _, err := d.client.ServerVersion(ctx); err != nil {
		return fmt.Errorf("ask the engine for its version: %w", err)
	}
	d.negotiated = true
	return nil
}

// Containers returns those with our labels.
func (d *Docker) Containers(ctx context.Context) ([]Container, error) {
	if err := d.negotiate(ctx); err != nil {
		return nil, err
	}
	list, err := d.client.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", labelRole))})
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	containers := make([]Container, 0, len(list))
	for _, summary := range list {
		// The list lacks the pid and how a container ended.
		details, err := d.client.ContainerInspect(ctx, summary.ID)
		if cerrdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("inspect container %s: %w", summary.ID, err)
		}
		containers = append(containers, describe(details))
	}
	return containers, nil
}

func describe(details container.InspectResponse) Container {
	c := Container{ID: details.ID, Name: strings.TrimPrefix(details.Name, "/")}
	if config := details.Config; config != nil {
		c.Role, c.Service, c.Config = Role(config.Labels[labelRole]), config.Labels[labelService], config.Labels[labelConfig]
		c.Ref = config.Labels[labelImage]
		for _, env := range config.Env {
			if collector, ok := strings.CutPrefix(env, envCollector); ok {
				c.Collector = collector
			}
		}
	}
	if details.HostConfig != nil {
		c.Network = string(details.HostConfig.NetworkMode)
	}
	if state := details.State; state != nil {
		c.Running, c.Dead, c.PID = state.Running, state.Dead, state.Pid
		c.ExitCode, c.OutOfMemory = state.ExitCode, state.OOMKilled
		c.Started, c.Finished = engineTime(state.StartedAt), engineTime(state.FinishedAt)
	}
	return c
}

// engineTime reads a time of the engine, which has the year 1 for never.
func engineTime(text string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil || t.Year() <= 1 {
		return time.Time{}
	}
	return t
}

// Create makes a container from the spec.
func (d *Docker) Create(ctx context.Context, spec Spec) (string, error) {
	id, err := d.create(ctx, spec)
	if cerrdefs.IsConflict(err) && d.evict(ctx, spec.Name) {
		id, err = d.create(ctx, spec)
	}
	if err != nil {
		return "", fmt.Errorf("create container %s: %w", spec.Name, err)
	}
	return id, nil
}

func (d *Docker) create(ctx context.Context, spec Spec) (string, error) {
	config := &container.Config{
		Image: spec.Image, Env: spec.Env,
		Labels: map[string]string{labelRole: string(spec.Role), labelService: spec.Service, labelConfig: spec.fingerprint()},
	}
	if spec.Ref != "" {
		config.Labels[labelImage] = spec.Ref
	}
	host := hostConfig(spec)
	if img, err := d.client.ImageInspect(ctx, spec.Image); err == nil && img.Config != nil && img.Config.Labels[labelReadOnly] == "true" {
		host.ReadonlyRootfs = true
	}
	created, err := d.client.ContainerCreate(ctx, config, host, nil, nil, spec.Name)
	return created.ID, err
}

func hostConfig(spec Spec) *container.HostConfig {
	host := &container.HostConfig{
		NetworkMode:    container.NetworkMode(spec.Network),
		IpcMode:        container.IPCModePrivate,
		CapDrop:        []string{"ALL"},
		CapAdd:         spec.Caps,
		SecurityOpt:    []string{"no-new-privileges"},
		ReadonlyRootfs: spec.ReadOnly,
		OomScoreAdj:    oomScore,
		// Restarts are ours: after a restart of the engine a honeypot must wait
		// for its sandbox to be attached.
		RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyDisabled},
		LogConfig:     container.LogConfig{Type: "json-file", Config: map[string]string{"max-size": "1m", "max-file": "2"}},
		Resources:     resources(spec.Limits),
	}
	if spec.Network == "none" {
		host.Sysctls = sandboxSysctls()
	}
	return host
}

// resources translates limits. Swap counts as memory; no process dumps core.
func resources(limits Limits) container.Resources {
	r := container.Resources{
		Memory: limits.Memory, MemorySwap: limits.Memory, PidsLimit: &limits.PIDs, CPUShares: limits.CPUWeight,
		Ulimits: []*units.Ulimit{{Name: "core"}, {Name: "nofile", Soft: maxFiles, Hard: maxFiles}},
	}
	if limits.Disk > 0 {
		r.Ulimits = append(r.Ulimits, &units.Ulimit{Name: "fsize", Soft: limits.Disk, Hard: limits.Disk})
	}
	return r
}

func sandboxSysctls() map[string]string {
	sysctls := map[string]string{
		// So a honeypot that has left root can still listen on port 22.
		"net.ipv4.ip_unprivileged_port_start": "0",
	}
	// The engine switches IPv6 off in a namespace without network. Where the
	// kernel has none at all, naming it would keep the sandbox from starting.
	const disable = "net.ipv6.conf.%s.disable_ipv6"
	if _, err := os.Stat("/proc/sys/net/ipv6/conf/all/disable_ipv6"); err == nil {
		sysctls[fmt.Sprintf(disable, "all")], sysctls[fmt.Sprintf(disable, "default")] = "0", "0"
	}
	return sysctls
}

// evict removes a container of the Python sensor that holds the name, as it is
// found after an update by hand that kept the engine's volume. It is known by
// what that sensor gave to each of its services.
func (d *Docker) evict(ctx context.Context, name string) bool {
	details, err := d.client.ContainerInspect(ctx, name)
	if err != nil || details.Config == nil || details.Name != "/"+name || details.Config.Labels[labelRole] != "" {
		return false
	}
	var marks int
	for _, env := range details.Config.Env {
		if strings.HasPrefix(env, "COLLECTOR_HOST=") || strings.HasPrefix(env, "COLLECTOR_PORT=") {
			marks++
		}
	}
	if marks != 2 {
		return false
	}
	d.log.Info("container of an older sensor is removed", zap.String("name", name), zap.String("container", details.ID))
	return d.Remove(ctx, details.ID) == nil
}

// Start starts a container and returns what it is then.
func (d *Docker) Start(ctx context.Context, id string) (Container, error) {
	if err := d.client.ContainerStart(ctx, id, container.StartOptions{}); err != nil {
		return Container{}, fmt.Errorf("start container %.12s: %w", id, err)
	}
	details, err := d.client.ContainerInspect(ctx, id)
	if err != nil {
		return Container{}, fmt.Errorf("inspect container %.12s: %w", id, err)
	}
	return describe(details), nil
}

// Rename gives a container another name.
func (d *Docker) Rename(ctx context.Context, id, name string) error {
	if err := d.client.ContainerRename(ctx, id, name); err != nil {
		return fmt.Errorf("rename container %.12s to %s: %w", id, name, err)
	}
	return nil
}

// Remove ends a container, by force if it takes its time, and removes it with
// its anonymous volumes.
func (d *Docker) Remove(ctx context.Context, id string) error {
	seconds := stopSeconds
	// Whatever this says, the removal has the last word.
	_ = d.client.ContainerStop(ctx, id, container.StopOptions{Timeout: &seconds})
	err := d.client.ContainerRemove(ctx, id, container.RemoveOptions{Force: true, RemoveVolumes: true})
	// A conflict is a removal that somebody else has begun.
	if err != nil && !cerrdefs.IsNotFound(err) && !cerrdefs.IsConflict(err) {
		return fmt.Errorf("remove container %.12s: %w", id, err)
	}
	return nil
}

// LastLine returns the last line of a container's output that is not empty.
func (d *Docker) LastLine(ctx context.Context, id string) string {
	stream, err := d.client.ContainerLogs(ctx, id, container.LogsOptions{ShowStdout: true, ShowStderr: true, Tail: "5"})
	if err != nil {
		return ""
	}
	defer stream.Close()
	var out bytes.Buffer
	// A part of the output is as good as all of it.
	_, _ = stdcopy.StdCopy(&out, &out, io.LimitReader(stream, maxLogTail))
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	return clean(lines[len(lines)-1])
}

// Watch calls notify at the events of our containers that change a pass.
func (d *Docker) Watch(ctx context.Context, notify func()) error {
	args := filters.NewArgs(filters.Arg("type", string(events.ContainerEventType)), filters.Arg("label", labelRole))
	for _, action := range []events.Action{events.ActionStart, events.ActionDie, events.ActionDestroy, events.ActionRename} {
		args.Add("event", string(action))
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := d.negotiate(ctx); err != nil {
		return fmt.Errorf("watch containers: %w", err)
	}
	messages, failed := d.client.Events(ctx, events.ListOptions{Filters: args})
	// What happened before is not told.
	notify()
	for {
		select {
		case <-messages:
			notify()
		case err := <-failed:
			if errors.Is(err, io.EOF) {
				err = errors.New("the engine has ended")
			}
			return fmt.Errorf("watch containers: %w", err)
		}
	}
}

package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/docker/docker/api/types/system"
	"github.com/docker/docker/client"
)

// The oldest Docker Engine that the sensor is tested with.
const minEngineMajor, minEngineMinor = 20, 10

// examineEngine asks the engine in which the honeypots run.
func (d *Doctor) examineEngine(ctx context.Context) {
	const check = "nested engine"
	if d.notYet(check) {
		return
	}
	info, err := askEngine(ctx, d.cfg.DockerSocket)
	if err != nil {
		d.problem(check, "look for dockerd in the log (docker compose logs sensor); without it no honeypot runs", "%v", err)
		return
	}
	d.ok(check, "Docker %s with storage driver %s", info.ServerVersion, info.Driver)
	if info.Driver == "vfs" {
		d.note(check, "keep /var/lib/docker in a volume on a file system that overlayfs works on, as the compose file does",
			"its storage driver copies every layer: images are slow and large, and what honeypots write is bounded only once it is found")
	}
	if info.Driver != "vfs" && (info.Driver != "overlay2" || info.DefaultRuntime == "runc") {
		d.note(check, "load the modules `loop` and `ext4` on the host (modprobe) and start the sensor again",
			"honeypots have no file systems of their own: what they write is bounded only once it is found")
	}
}

// examineHostEngine finds out whether the sensor can replace itself.
func (d *Doctor) examineHostEngine(ctx context.Context) {
	const check = "host's engine"
	const byHand = "; until then the sensor has to be updated by hand"
	path := d.cfg.HostDockerSocket
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		d.note(check, "mount the host's Docker socket as the compose file does"+byHand, "%s is not there", path)
		return
	case err != nil:
		d.note(check, "mount the host's Docker socket as the compose file does"+byHand, "%v", err)
		return
	case info.Mode().Type() != fs.ModeSocket:
		// An engine makes a directory of a path that is not there.
		d.note(check, "correct the path of the socket in docker-compose.yml"+byHand, "%s is not a socket", path)
		return
	case info.Mode().Perm()&0o060 != 0o060:
		d.note(check, "give the socket's group the right to read and write it"+byHand, "the group of %s may not use it (%s)", path, info.Mode())
		return
	}
	engine, err := askEngine(ctx, path)
	if err != nil {
		d.note(check, "check the host's Docker Engine"+byHand, "%v", err)
		return
	}
	if major, minor, ok := majorMinor(engine.ServerVersion); ok && (major < minEngineMajor || (major == minEngineMajor && minor < minEngineMinor)) {
		d.problem(check, "upgrade the host's Docker Engine", "it is %s, and %d.%d is needed", engine.ServerVersion, minEngineMajor, minEngineMinor)
		return
	}
	d.ok(check, "Docker %s", engine.ServerVersion)
}

func askEngine(ctx context.Context, socket string) (info system.Info, err error) {
	engine, err := client.NewClientWithOpts(client.WithHost("unix://"+socket), client.WithAPIVersionNegotiation())
	if err != nil {
		return system.Info{}, fmt.Errorf("client of the engine at %s: %w", socket, err)
	}
	defer func() { err = errors.Join(err, engine.Close()) }()
	if info, err = engine.Info(ctx); err != nil {
		return system.Info{}, fmt.Errorf("ask the engine at %s: %w", socket, err)
	}
	return info, nil
}

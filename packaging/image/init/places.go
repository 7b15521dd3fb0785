package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// places is what is prepared.
type places struct {
	run        string // directory of sockets and of state that ends with the container
	deployment string // directory on the host that holds docker-compose.yml and .env
	config     string // directory on the host that holds the configuration archive
	hostSocket string // socket of the host's engine
	cgroup     string // mount of the control groups
	proc       string
	uid, gid   int // of the manager
	log        *zap.Logger
}

// part is what is prepared, where the programs of the sensor are in containers
// of their own.
type part string

const (
	everything part = ""
	// onlyEngine is for the container of the nested engine.
	onlyEngine part = "engine"
	// onlyFiles is for the directories that the host mounts.
	onlyFiles part = "files"
)

// prepare returns the groups of the manager, as setpriv wants them.
func (p places) prepare(what part) (string, error) {
	if what != onlyFiles {
		if err := p.clearRun(); err != nil {
			return "", err
		}
		if err := delegateCgroup(p.cgroup, p.proc); err != nil {
			p.log.Warn("control groups not prepared, honeypots may not start", zap.Error(err))
		}
	}
	if what != onlyEngine {
		p.shareFiles()
	}
	if what != everything {
		return "", nil
	}
	return p.groups(), nil
}

func (p places) shareFiles() {
	if err := p.shareDeployment(); err != nil {
		p.log.Warn("deployment directory not prepared, updates may fail and events may not outlive the container",
			zap.String("directory", p.deployment), zap.Error(err))
	}
	if err := share(p.config, p.gid, isArchive); err != nil {
		p.log.Warn("configuration directory not prepared, changes by the server may not outlive a restart",
			zap.String("directory", p.config), zap.Error(err))
	}
}

// clearRun removes what an earlier run of the container left in its runtime
// directory: process ids, sockets and leases that are of no one. It names them
// one by one since the socket of the host's engine is mounted beside them.
func (p places) clearRun() error {
	stale := []string{"docker", "docker.pid", "docker.sock", "containerd", "sensor", "manager", "nethelper"}
	for _, name := range stale {
		if err := os.RemoveAll(filepath.Join(p.run, name)); err != nil {
			return fmt.Errorf("clear runtime directory: %w", err)
		}
	}
	// The set-group-id bit gives the helper's socket the sensor's group without
	// the capability to change owners.
	return errors.Join(
		makeDir(filepath.Join(p.run, "sensor"), 0, p.gid, 0o2750),
		makeDir(filepath.Join(p.run, "nethelper"), 0, 0, 0o700),
		makeDir(filepath.Join(p.run, "manager"), p.uid, p.gid, 0o750),
	)
}

func makeDir(path string, uid, gid int, mode uint32) error {
	if err := os.Mkdir(path, 0o700); err != nil {
		return fmt.Errorf("make runtime directory: %w", err)
	}
	// In this order: changing the owner clears the set-group-id bit.
	if err := os.Chown(path, uid, gid); err != nil {
		return fmt.Errorf("give runtime directory to the sensor: %w", err)
	}
	if err := unix.Chmod(path, mode); err != nil {
		return fmt.Errorf("set mode of %s: %w", path, err)
	}
	return nil
}

// shareDeployment lets the manager replace the compose file and .env, and gives
// it its state directory.
func (p places) shareDeployment() error {
	files := func(name string) bool { return name == "docker-compose.yml" || name == ".env" }
	shared := share(p.deployment, p.gid, files)
	return errors.Join(shared, giveState(p.deployment, p.uid, p.gid))
}

func isArchive(name string) bool {
	return strings.HasSuffix(name, ".tar.gz")
}

// groups returns the groups of the manager: its own, and that of the host
// engine's socket where one is mounted.
func (p places) groups() string {
	own := strconv.Itoa(p.gid)
	info, err := os.Stat(p.hostSocket)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		p.log.Info("socket of the host's engine is not mounted, the sensor cannot update itself", zap.String("socket", p.hostSocket))
		return own
	case err != nil:
		p.log.Warn("socket of the host's engine is unusable, the sensor cannot update itself", zap.Error(err))
		return own
	case info.Mode().Type() != fs.ModeSocket:
		// The engine makes a directory of a path that is not there.
		p.log.Warn("socket of the host's engine is none, the sensor cannot update itself; correct its path in docker-compose.yml",
			zap.String("socket", p.hostSocket))
		return own
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || info.Mode().Perm()&0o060 != 0o060 {
		p.log.Warn("group of the host engine's socket may not use it, the sensor cannot update itself",
			zap.Stringer("mode", info.Mode()))
		return own
	}
	return own + "," + strconv.FormatUint(uint64(owner.Gid), 10)
}

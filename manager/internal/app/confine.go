package app

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"go.uber.org/zap"

	"honeysens.org/dockersensor/manager/internal/config"
	"honeysens.org/dockersensor/manager/internal/sandbox"
)

// portDNS is where long answers of name servers come from, by TCP.
const portDNS = 53

// errNewPorts ends a manager whose settings need a port that its sandbox does
// not have. A sandbox cannot be widened, so the next manager has another one.
var errNewPorts = errors.New("the server's settings need other TCP ports: to be started again")

// confine makes the directories that the manager writes to, reads what it was
// doing, and leaves the process no more than it needs.
func confine(cfg Config, setup *setup, log *zap.Logger) error {
	writable := []string{cfg.StateDir, filepath.Dir(cfg.ControlSocket)}
	for _, dir := range writable {
		if err := os.MkdirAll(dir, 0o750); err != nil {
			return fmt.Errorf("directory for state: %w; name another one with --state-dir and --control-socket", err)
		}
	}
	writable = append(writable, filepath.Dir(setup.path()))
	if _, err := os.Stat(cfg.DeployDir); err == nil {
		writable = append(writable, cfg.DeployDir)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("deployment directory: %w", err)
	}
	bind, err := cfg.bind()
	if err != nil {
		return err
	}
	connect := setup.allowPorts()
	log.Debug("process is confined", zap.Strings("writable", writable), zap.Uint16s("listens", bind), zap.Uint16s("connects", connect))
	return sandbox.Enter(sandbox.Config{Writable: writable, Readable: []string{cfg.PauseProgram}, Bind: bind, Connect: connect})
}

// bind returns the ports at which the manager listens.
func (cfg Config) bind() ([]uint16, error) {
	ports := []uint16{cfg.CollectorPort}
	for _, address := range []string{cfg.CollectorListen, cfg.MetricsListen} {
		if address == "" {
			continue
		}
		_, text, err := net.SplitHostPort(address)
		if err != nil {
			return nil, fmt.Errorf("address to listen at: %w", err)
		}
		port, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return nil, fmt.Errorf("address to listen at %q: want the port as a number", address)
		}
		ports = append(ports, uint16(port))
	}
	return ports, nil
}

// portsOf returns the ports by which a way leads to the server.
func portsOf(way config.Way) []uint16 {
	ports := []uint16{way.Port}
	if way.Proxy != nil {
		ports = append(ports, way.Proxy.Port)
	}
	return ports
}

// allowPorts returns the ports that the process needs, and keeps them: settings
// that need others wait for the next manager. Those of a change that is not
// settled are among them, so that neither the way back nor the next try need
// one.
func (s *setup) allowPorts() []uint16 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ports = append(portsOf(s.current.way()), portDNS)
	if s.record != nil {
		s.ports = slices.Concat(s.ports, portsOf(s.record.before.way()), portsOf(s.record.wanted.way()))
	}
	slices.Sort(s.ports)
	s.ports = slices.Compact(s.ports)
	return s.ports
}

// reachable tells whether this process may connect to the ports of a way.
func (s *setup) reachable(way config.Way) bool {
	for _, port := range portsOf(way) {
		if s.ports != nil && !slices.Contains(s.ports, port) {
			return false
		}
	}
	return true
}

// needsRestart tells whether the settings in force are for the next manager.
func (s *setup) needsRestart() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.reachable(s.current.way())
}

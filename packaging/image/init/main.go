package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"honeysens.org/dockersensor/shared/logging"
)

// The user and group `sensor` of the image.
const sensorID = 10001

// Compose files of the first releases, for bridge networking only, name no
// interface. Engines name it so.
const defaultInterface = "eth0"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "init:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	what := everything
	if len(args) > 0 && strings.HasPrefix(args[0], "--only=") {
		what, args = part(strings.TrimPrefix(args[0], "--only=")), args[1:]
	}
	if len(args) == 0 || (what != everything && what != onlyEngine && what != onlyFiles) {
		return errors.New("usage: init [--only=engine|--only=files] PROGRAM [ARGUMENT...]")
	}
	program, err := exec.LookPath(args[0])
	if err != nil {
		return fmt.Errorf("find the supervisor: %w", err)
	}
	// A level that cannot be read is the manager's to report.
	level, _ := logging.ParseLevel(os.Getenv("LOG_LVL"))
	log, _, err := logging.New("init", level)
	if err != nil {
		return err
	}
	groups, err := container(log).prepare(what)
	if err != nil {
		return err
	}
	env := append(os.Environ(), "SENSOR_GROUPS="+groups)
	if os.Getenv("IFACE") == "" {
		env = append(env, "IFACE="+defaultInterface)
	}
	if err := unix.Exec(program, args, env); err != nil {
		return fmt.Errorf("start %s: %w", program, err)
	}
	return nil
}

// container returns the places in the container.
func container(log *zap.Logger) places {
	return places{
		run:        "/run",
		deployment: "/mnt",
		config:     "/etc/manager",
		hostSocket: "/var/run/docker.host.sock",
		cgroup:     "/sys/fs/cgroup",
		proc:       "/proc",
		uid:        sensorID,
		gid:        sensorID,
		log:        log,
	}
}

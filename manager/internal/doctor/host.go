package doctor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// What the sensor needs of its host.
const (
	// The oldest kernel with all that the helper's rules need.
	minKernelMajor, minKernelMinor = 5, 10
	// Memory in MiB: of the whole host for sensor and honeypots, and free for
	// one that runs.
	wantMemory, minFreeMemory = 900, 100
	// Disk in MiB: for the spool when it is full, and for it to work at all.
	wantDisk, minDisk = 512, 64
)

// path returns the place of a file of the kernel.
func (d *Doctor) path(parts ...string) string {
	return filepath.Join(append([]string{d.cfg.Root}, parts...)...)
}

func (d *Doctor) examineKernel(context.Context) {
	text, err := os.ReadFile(d.path("proc/sys/kernel/osrelease"))
	if err != nil {
		d.skip("kernel", "its version cannot be read: %v", err)
		return
	}
	release := strings.TrimSpace(string(text))
	major, minor, ok := majorMinor(release)
	switch {
	case !ok:
		d.skip("kernel", "its version %.60q has no number", release)
	case major < minKernelMajor || (major == minKernelMajor && minor < minKernelMinor):
		d.problem("kernel", "upgrade the host: honeypots are reached by rules that need a newer kernel",
			"it is %s, and %d.%d is needed", release, minKernelMajor, minKernelMinor)
	default:
		d.ok("kernel", "%s", release)
	}
}

// majorMinor reads the first two numbers of a version such as 6.12.4-amd64.
func majorMinor(version string) (major, minor int, ok bool) {
	first, rest, _ := strings.Cut(version, ".")
	second := rest
	if end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' }); end >= 0 {
		second = rest[:end]
	}
	major, err := strconv.Atoi(first)
	if err != nil {
		return 0, 0, false
	}
	minor, err = strconv.Atoi(second)
	return major, minor, err == nil
}

func (d *Doctor) examineMemory(context.Context) {
	total, free, err := d.memory()
	switch {
	case err != nil:
		d.skip("memory", "%v", err)
	case free < minFreeMemory:
		d.problem("memory", "give the host more memory, or assign fewer services: the kernel ends honeypots when none is left", "%d of %d MiB are free", free, total)
	case total < wantMemory:
		d.note("memory", "1 GB is right for the sensor and a few honeypots", "the host has %d MiB", total)
	default:
		d.ok("memory", "%d of %d MiB are free", free, total)
	}
}

// memory returns what the host has and what programs can still get, in MiB
// (MemTotal and MemAvailable of proc_meminfo(5)).
func (d *Doctor) memory() (total, free int, err error) {
	file, err := os.Open(d.path("proc/meminfo"))
	if err != nil {
		return 0, 0, fmt.Errorf("memory: %w", err)
	}
	defer file.Close()
	found := map[string]int{}
	for scanner := bufio.NewScanner(file); scanner.Scan(); {
		if fields := strings.Fields(scanner.Text()); len(fields) >= 2 {
			if kib, err := strconv.Atoi(fields[1]); err == nil {
				found[fields[0]] = kib / 1024
			}
		}
	}
	total, free = found["MemTotal:"], found["MemAvailable:"]
	if total == 0 || free == 0 {
		return 0, 0, errors.New("memory: /proc/meminfo does not tell it")
	}
	return total, free, nil
}

// examineCgroups finds out whether honeypots can be limited in memory and in
// their number of processes.
func (d *Doctor) examineCgroups(context.Context) {
	const advice = "switch the controllers memory and pids on in the host's kernel; honeypots are started with limits only"
	text, err := os.ReadFile(d.path("sys/fs/cgroup/cgroup.controllers"))
	version, has := "v2", strings.Fields(string(text))
	if errors.Is(err, fs.ErrNotExist) {
		version = "v1"
		for _, controller := range []string{"memory", "pids"} {
			if info, err := os.Stat(d.path("sys/fs/cgroup", controller)); err == nil && info.IsDir() {
				has = append(has, controller)
			}
		}
	} else if err != nil {
		d.skip("control groups", "%v", err)
		return
	}
	for _, controller := range []string{"memory", "pids"} {
		if !slices.Contains(has, controller) {
			d.problem("control groups", advice, "the controller %s is missing (control groups %s)", controller, version)
			return
		}
	}
	d.ok("control groups", "%s", version)
}

// examineState finds out whether events can be kept.
func (d *Doctor) examineState(context.Context) {
	const check = "state directory"
	dir := d.cfg.StateDir
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) && d.cfg.Before {
		// It is made at the first start.
		dir = filepath.Dir(dir)
	}
	if err := tryWrite(dir); err != nil {
		d.problem(check, "make it a directory that can be written: without it no event of a honeypot is accepted", "%v", err)
		return
	}
	free, err := freeDisk(dir)
	switch {
	case err != nil:
		d.skip(check, "%v", err)
	case free < minDisk:
		d.problem(check, "free disk space: events are refused when there is none", "%s has %d MiB left", dir, free)
	case free < wantDisk:
		d.note(check, fmt.Sprintf("free disk space: up to %d MiB are used while the server is away", wantDisk), "%s has %d MiB left", dir, free)
	default:
		d.ok(check, "%s can be written and has %d MiB left", dir, free)
	}
}

func tryWrite(dir string) error {
	file, err := os.CreateTemp(dir, ".doctor-*")
	if err != nil {
		return fmt.Errorf("write to %s: %w", dir, err)
	}
	_, err = file.WriteString("written by the sensor's doctor\n")
	if err := errors.Join(err, file.Close(), os.Remove(file.Name())); err != nil {
		return fmt.Errorf("write to %s: %w", dir, err)
	}
	return nil
}

// freeDisk returns the space of a directory's file system that is free for
// users, in MiB.
func freeDisk(dir string) (int, error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(dir, &stat); err != nil {
		return 0, fmt.Errorf("free space of %s: %w", dir, err)
	}
	return int(float64(stat.Bavail) * float64(stat.Bsize) / (1 << 20)), nil
}

// examineDeployment looks for the two files that an update changes.
func (d *Doctor) examineDeployment(context.Context) {
	for _, name := range []string{"docker-compose.yml", ".env"} {
		info, err := os.Stat(filepath.Join(d.cfg.DeployDir, name))
		if err == nil && !info.Mode().IsRegular() {
			err = errors.New(name + " is not a file")
		}
		if err != nil {
			d.note("deployment", "start the sensor with HOST_PWD set to the directory of docker-compose.yml; until then it has to be updated by hand", "%v", err)
			return
		}
	}
	d.ok("deployment", "docker-compose.yml and .env are in %s", d.cfg.DeployDir)
}

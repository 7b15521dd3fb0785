package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"

	"honeysens.org/dockersensor/shared/helperapi"
)

// maxMountinfo bounds /proc/self/mountinfo, in bytes.
const maxMountinfo = 4 << 20

// sensorID returns the given container id, or that of the container that this
// process runs in.
func sensorID(given string) (string, error) {
	if given != "" {
		if !helperapi.ValidContainerID(given) {
			return "", fmt.Errorf("sensor-id %.80q: want the 64 digits of a full container id", given)
		}
		return given, nil
	}
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("own container id: %w", err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxMountinfo))
	if err != nil {
		return "", fmt.Errorf("own container id: %w", err)
	}
	if id := containerOf(string(text)); id != "" {
		return id, nil
	}
	return "", errors.New("own container id: this does not seem to be a container of Docker or Kubernetes; give --sensor-id")
}

// containerOf finds the container id in a /proc/PID/mountinfo: Docker mounts
// /etc/hostname and two more files from .../containers/ID/ on the host, the
// runtimes of Kubernetes from .../sandboxes/ID/ (containerd) or
// .../overlay-containers/ID/userdata/ (CRI-O), with the id of the pod's sandbox.
// The name of the host, which operators choose, does not matter, nor does the
// cgroup, which the container may not see.
func containerOf(mountinfo string) string {
	found := regexp.MustCompile(`/(?:containers|sandboxes|overlay-containers)/([0-9a-f]{64})/[^ ]* /etc/(?:hostname|hosts|resolv\.conf) `).FindStringSubmatch(mountinfo)
	if found == nil {
		return ""
	}
	return found[1]
}

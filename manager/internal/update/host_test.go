package update

import (
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/google/go-cmp/cmp"
)

// TestComposeFiles: the label is of whoever ran compose, and may name files in
// that one's container.
func TestComposeFiles(t *testing.T) {
	for label, want := range map[string][]string{
		"/opt/hs/docker-compose.yml":                    {"/opt/hs/docker-compose.yml"},
		"/opt/hs/a.yml,/opt/hs/sub/b.yml":               {"/opt/hs/a.yml", "/opt/hs/sub/b.yml"},
		"/opt/hs/compose.yaml,/etc/shared/override.yml": {"/opt/hs/compose.yaml"},
		"/mnt/docker-compose.yml":                       {"/opt/hs/docker-compose.yml"},
		"/opt/hs/../other/docker-compose.yml":           {"/opt/hs/docker-compose.yml"},
		"":                                              {"/opt/hs/docker-compose.yml"},
		"/opt/hs":                                       {"/opt/hs/docker-compose.yml"},
	} {
		got := composeFiles(label, "/opt/hs")
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", label, diff)
		}
		d := Deployment{Dir: "/opt/hs", Files: got, Service: "sensor", Socket: "/run/docker.sock"}
		if err := d.validate(); err != nil {
			t.Errorf("%q: %v", label, err)
		}
	}
}

func TestOwnID(t *testing.T) {
	line := "701 682 254:0 /var/lib/docker/containers/" + oldID + "/hostname /etc/hostname rw,relatime - ext4 /dev/vda rw"
	if found := ownID.FindStringSubmatch("1 2 0:3 / / rw\n" + line); len(found) != 2 || found[1] != oldID {
		t.Errorf("found %q", found)
	}
	// A directory that is mounted into the container may have any name.
	other := strings.Replace(line, "/etc/hostname", "/mnt/hostname", 1)
	if found := ownID.FindStringSubmatch(other); found != nil {
		t.Errorf("found %q", found)
	}
}

// TestConductorsEnvironment has what the compose file passes on, and the
// deployment's own.
func TestConductorsEnvironment(t *testing.T) {
	d := Deployment{Dir: "/opt/hs", Env: []string{"IFACE=eth0", "HOST_PWD=/elsewhere", "PREV_PREFIX=before", "COMPOSE_PROJECT_NAME=x", "EMPTY="}}
	want := []string{"IFACE=eth0", "EMPTY=", "HOST_PWD=/opt/hs", "PREV_PREFIX=hs", "DOCKER_HOST=unix://" + mountSocket}
	if diff := cmp.Diff(want, conductorEnv(d, "hs")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestContainersOfAnotherDirectoryAreNotOurs: two sensors may have projects of one
// name.
func TestContainersOfAnotherDirectoryAreNotOurs(t *testing.T) {
	c := container.Summary{Mounts: []container.MountPoint{{Destination: "/etc/manager", Source: "/opt/hs"}, {Destination: mountDeploy, Source: "/opt/other"}}}
	if isOf(c, "/opt/hs") || !isOf(c, "/opt/other") {
		t.Error("the directory does not tell them apart")
	}
	c.Mounts = append(c.Mounts, container.MountPoint{Type: "volume", Name: "hs_docker_overlay"}, container.MountPoint{Type: "bind", Name: ""})
	if got := volumesOf(c); !slices.Equal(got, []string{"hs_docker_overlay"}) {
		t.Errorf("volumes %q", got)
	}
}

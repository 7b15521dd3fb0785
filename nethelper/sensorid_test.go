package main

import (
	"strings"
	"testing"
)

func TestContainerOf(t *testing.T) {
	id := strings.Repeat("0123456789abcdef", 4)
	line := func(path string) string {
		return "811 790 254:0 " + path + " rw,relatime - ext4 /dev/vda rw\n"
	}
	cases := map[string]struct{ mountinfo, want string }{
		"docker":              {line("/ /") + line("/var/lib/docker/containers/"+id+"/hostname /etc/hostname"), id},
		"data root elsewhere": {line("/containers/" + id + "/resolv.conf /etc/resolv.conf"), id},
		"containerd of Kubernetes": {line("/var/lib/kubelet/pods/1-2/etc-hosts /etc/hosts") +
			line("/var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes/"+id+"/hostname /etc/hostname"), id},
		"CRI-O":               {line("/run/containers/storage/overlay-containers/" + id + "/userdata/hostname /etc/hostname"), id},
		"nested engine's own": {line("/volumes/x/_data/containers/" + id + "/hostname /var/lib/docker/containers/" + id + "/hostname"), ""},
		"short id":            {line("/var/lib/docker/containers/" + id[:12] + "/hostname /etc/hostname"), ""},
		"no container":        {line("/ /"), ""},
		"empty":               {"", ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := containerOf(c.mountinfo); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestSensorIDOfAFlag(t *testing.T) {
	for _, bad := range []string{"abc", strings.Repeat("g", 64), strings.Repeat("a", 65), "../" + strings.Repeat("a", 61)} {
		if id, err := sensorID(bad); err == nil {
			t.Errorf("%q was taken as %q", bad, id)
		}
	}
}

func FuzzContainerOf(f *testing.F) {
	f.Add("1 2 3:4 /containers/" + strings.Repeat("a", 64) + "/hosts /etc/hosts rw")
	f.Fuzz(func(t *testing.T, mountinfo string) {
		if id := containerOf(mountinfo); id != "" {
			if _, err := sensorID(id); err != nil {
				t.Errorf("%q: %v", id, err)
			}
		}
	})
}

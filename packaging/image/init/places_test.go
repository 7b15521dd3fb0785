package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/zap"

	"honeysens.org/dockersensor/shared/nettest"
)

func TestClearRun(t *testing.T) {
	nettest.Need(t)
	run := t.TempDir()
	for _, stale := range []string{"docker/netns/default", "docker/containerd/containerd.pid", "docker.pid", "sensor/nethelper.sock", "nethelper/leases/last"} {
		path := filepath.Join(run, stale)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, path, 0o600)
	}
	mounted := filepath.Join(run, "docker.host.sock")
	write(t, mounted, 0o660)

	if err := (places{run: run, uid: 10001, gid: 10001}).clearRun(); err != nil {
		t.Fatal(err)
	}

	for _, gone := range []string{"docker", "docker.pid", "sensor/nethelper.sock", "nethelper/leases"} {
		if _, err := os.Lstat(filepath.Join(run, gone)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there: %v", gone, err)
		}
	}
	if mode, _ := modeAndOwner(t, mounted); mode != 0o660 {
		t.Errorf("the host's socket has mode %v", mode)
	}
	tests := []struct {
		name     string
		mode     fs.FileMode
		uid, gid uint32
	}{
		{"sensor", fs.ModeDir | fs.ModeSetgid | 0o750, 0, 10001},
		{"nethelper", fs.ModeDir | 0o700, 0, 0},
		{"manager", fs.ModeDir | 0o750, 10001, 10001},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			mode, owner := modeAndOwner(t, filepath.Join(run, tt.name))
			if mode != tt.mode || owner.Uid != tt.uid || owner.Gid != tt.gid {
				t.Errorf("mode %v of %d:%d, want %v of %d:%d", mode, owner.Uid, owner.Gid, tt.mode, tt.uid, tt.gid)
			}
		})
	}
}

// Where programs are in containers of their own, each has its part prepared.
func TestPrepareOnlyAPart(t *testing.T) {
	nettest.Need(t)
	for what, want := range map[part]map[string]bool{
		onlyEngine: {"run/sensor": true, "mnt/state": false},
		onlyFiles:  {"run/sensor": false, "mnt/state": true},
		everything: {"run/sensor": true, "mnt/state": true},
	} {
		t.Run(string(what), func(t *testing.T) {
			dir := t.TempDir()
			for _, name := range []string{"run", "mnt", "conf", "proc/self"} {
				if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			p := places{
				run: filepath.Join(dir, "run"), deployment: filepath.Join(dir, "mnt"), config: filepath.Join(dir, "conf"),
				hostSocket: filepath.Join(dir, "none"), cgroup: dir, proc: filepath.Join(dir, "proc"), uid: 10001, gid: 10001, log: zap.NewNop(),
			}
			if _, err := p.prepare(what); err != nil {
				t.Fatal(err)
			}
			for path, there := range want {
				if _, err := os.Stat(filepath.Join(dir, path)); (err == nil) != there {
					t.Errorf("%s is there: %v, want %v", path, err == nil, there)
				}
			}
		})
	}
}

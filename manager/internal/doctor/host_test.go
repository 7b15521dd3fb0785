package doctor

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"honeysens.org/dockersensor/shared/nettest"
)

const header = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"

// goodFiles are those of a host on which everything is right.
func goodFiles() map[string]string {
	return map[string]string{
		"proc/sys/kernel/osrelease":        "6.12.4-amd64\n",
		"proc/meminfo":                     "MemTotal:        4000000 kB\nMemFree:  1 kB\nMemAvailable:    2000000 kB\n",
		"sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory pids\n",
		"proc/net/tcp": header +
			"   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 1\n" + // sshd
			"   1: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 2\n" + // 127.0.0.1
			"   2: 020000C0:8E00 030000C0:01BB 01 00000000:00000000 00:00000000 00000000 0 0 3\n", // a connection
		"proc/net/tcp6": header +
			"   0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 0 0 0 0 0 1\n" +
			"   1: 00000000000000000000000001000000:1F92 00000000000000000000000000000000:0000 0A 0 0 0 0 0 1\n" + // ::1
			"   2: 0000000000000000FFFF00000100007F:1F93 00000000000000000000000000000000:0000 0A 0 0 0 0 0 1\n", // ::ffff:127.0.0.1
		"proc/net/udp": header + "  0: 00000000:00A1 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 1\n",
	}
}

func goodRoot(t *testing.T) string {
	t.Helper()
	return write(t, goodFiles())
}

func TestHost(t *testing.T) {
	tests := []struct {
		name, file, text string
		want             want
	}{
		{"old kernel", "proc/sys/kernel/osrelease", "5.4.0-150-generic", want{"kernel", Problem, "upgrade the host"}},
		{"very old kernel", "proc/sys/kernel/osrelease", "4.19.0", want{"kernel", Problem, "5.10 is needed"}},
		{"oldest kernel", "proc/sys/kernel/osrelease", "5.10-rc1", want{"kernel", OK, ""}},
		{"odd kernel", "proc/sys/kernel/osrelease", "generic", want{"kernel", Skipped, "generic"}},
		{"little memory", "proc/meminfo", "MemTotal: 500000 kB\nMemAvailable: 300000 kB\n", want{"memory", Note, "488 MiB"}},
		{"no memory left", "proc/meminfo", "MemTotal: 5000000 kB\nMemAvailable: 30000 kB\n", want{"memory", Problem, "29 of 4882 MiB"}},
		{"odd memory", "proc/meminfo", "MemTotal: many\n", want{"memory", Skipped, ""}},
		{"no memory controller", "sys/fs/cgroup/cgroup.controllers", "cpu pids\n", want{"control groups", Problem, "controller memory is missing"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			files := goodFiles()
			files[test.file] = test.text
			d := alone(Config{Root: write(t, files)})
			d.examineKernel(t.Context())
			d.examineMemory(t.Context())
			d.examineCgroups(t.Context())
			wants := []want{{"kernel", OK, "6.12.4-amd64"}, {"memory", OK, "1953 of 3906 MiB"}, {"control groups", OK, "v2"}}
			for i := range wants {
				if wants[i].check == test.want.check {
					wants[i] = test.want
				}
			}
			expect(t, d.findings, wants...)
		})
	}
}

func TestOldCgroups(t *testing.T) {
	root := write(t, map[string]string{"sys/fs/cgroup/memory/x": "", "sys/fs/cgroup/pids/x": ""})
	d := alone(Config{Root: root})
	d.examineCgroups(t.Context())
	if err := os.RemoveAll(filepath.Join(root, "sys/fs/cgroup/pids")); err != nil {
		t.Fatal(err)
	}
	d.examineCgroups(t.Context())
	expect(t, d.findings, want{"control groups", OK, "v1"}, want{"control groups", Problem, "controller pids is missing (control groups v1)"})
}

// TestFullDisk needs the right to mount, in a namespace or without.
func TestFullDisk(t *testing.T) {
	for name, test := range map[string]struct {
		options string
		flags   uintptr
		want    want
	}{
		"small":     {"size=8m", 0, want{"state directory", Problem, "8 MiB left"}},
		"smallish":  {"size=128m", 0, want{"state directory", Note, "free disk space"}},
		"read-only": {"size=1g", unix.MS_RDONLY, want{"state directory", Problem, "read-only file system"}},
	} {
		t.Run(name, func(t *testing.T) {
			nettest.Need(t)
			dir := t.TempDir()
			err := unix.Mount("tmpfs", dir, "tmpfs", test.flags, test.options)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := unix.Unmount(dir, 0); err != nil {
					t.Error(err)
				}
			}()
			d := alone(Config{StateDir: dir})
			d.examineState(t.Context())
			expect(t, d.findings, test.want)
		})
	}
}

func TestDeployment(t *testing.T) {
	dir := write(t, map[string]string{"docker-compose.yml": "services:", ".env": "COMPOSE_PROJECT_NAME=x"})
	d := alone(Config{DeployDir: dir})
	d.examineDeployment(t.Context())
	if err := errors.Join(os.Remove(filepath.Join(dir, ".env")), os.Mkdir(filepath.Join(dir, ".env"), 0o750)); err != nil {
		t.Fatal(err)
	}
	d.examineDeployment(t.Context())
	expect(t, d.findings, want{"deployment", OK, dir}, want{"deployment", Note, ".env is not a file"})
}

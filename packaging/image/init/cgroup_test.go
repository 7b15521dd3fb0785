package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestDelegateCgroup(t *testing.T) {
	tests := []struct {
		name, membership string
		hostRoot         bool
		delegated        bool
	}{
		{name: "own namespace", membership: "0::/\n", delegated: true},
		{name: "root of the host", membership: "0::/\n", hostRoot: true},
		{name: "namespace of the host", membership: "0::/system.slice/docker-1.scope\n"},
		{name: "version 1", membership: "2:memory:/docker/1\n1:cpu:/docker/1\n0::/docker/1\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			mount, proc := t.TempDir(), t.TempDir()
			files := map[string]string{
				filepath.Join(mount, "cgroup.procs"):           "1\n",
				filepath.Join(mount, "cgroup.controllers"):     "memory\n",
				filepath.Join(mount, "cgroup.subtree_control"): "",
				filepath.Join(proc, "self/cgroup"):             tt.membership,
			}
			if !tt.hostRoot {
				files[filepath.Join(mount, "cgroup.type")] = "domain\n"
			}
			for path, text := range files {
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			// The kernel makes these files with the directory.
			leaf := filepath.Join(mount, "init")
			if err := os.Mkdir(leaf, 0o755); err != nil {
				t.Fatal(err)
			}
			moved := filepath.Join(leaf, "cgroup.procs")
			if err := os.WriteFile(moved, nil, 0o600); err != nil {
				t.Fatal(err)
			}

			if err := delegateCgroup(mount, proc); err != nil {
				t.Fatal(err)
			}

			wantPID, wantControl := "", ""
			if tt.delegated {
				wantPID, wantControl = "1", "+memory"
			}
			expectText(t, moved, wantPID)
			expectText(t, filepath.Join(mount, "cgroup.subtree_control"), wantControl)
		})
	}
}

func expectText(t *testing.T, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s holds %q, want %q", path, got, want)
	}
}

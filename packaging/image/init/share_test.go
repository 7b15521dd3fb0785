package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"go.uber.org/zap/zaptest"
)

// The group that tests hand things to. As root any will do; others can only
// give to their own.
func testGroup() int {
	if os.Geteuid() == 0 {
		return 10001
	}
	return os.Getegid()
}

func write(t *testing.T, path string, mode fs.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func modeAndOwner(t *testing.T, path string) (fs.FileMode, *syscall.Stat_t) {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		t.Fatal("no owner")
	}
	return info.Mode(), owner
}

func TestShare(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	archive, other := filepath.Join(dir, "s1.tar.gz"), filepath.Join(dir, "notes.txt")
	write(t, archive, 0o644)
	write(t, other, 0o600)

	if err := share(dir, testGroup(), isArchive); err != nil {
		t.Fatal(err)
	}

	tests := []struct {
		name, path string
		mode       fs.FileMode
		gid        int
	}{
		{"directory", dir, fs.ModeDir | 0o775, testGroup()},
		{"archive", archive, 0o664, testGroup()},
		{"other file", other, 0o600, os.Getegid()},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			mode, owner := modeAndOwner(t, tt.path)
			if mode != tt.mode || int(owner.Gid) != tt.gid {
				t.Errorf("mode %v, group %d, want %v, %d", mode, owner.Gid, tt.mode, tt.gid)
			}
			if int(owner.Uid) != os.Geteuid() {
				t.Errorf("owner %d changed", owner.Uid)
			}
		})
	}
}

// What a sensor that was taken over left must not lead to files outside.
func TestShareRefusesTraps(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "shadow")
	tests := []struct {
		name  string
		plant func(path string) error
	}{
		{"symbolic link", func(path string) error { return os.Symlink(outside, path) }},
		{"hard link", func(path string) error { return os.Link(outside, path) }},
		{"named pipe", func(path string) error { return syscall.Mkfifo(path, 0o600) }},
		{"directory", func(path string) error { return os.Mkdir(path, 0o700) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.RemoveAll(outside); err != nil {
				t.Fatal(err)
			}
			write(t, outside, 0o600)
			if err := tt.plant(filepath.Join(dir, "s1.tar.gz")); err != nil {
				t.Fatal(err)
			}
			if err := share(dir, testGroup(), isArchive); err == nil {
				t.Error("no error")
			}
			if mode, owner := modeAndOwner(t, outside); mode != 0o600 || int(owner.Gid) != os.Getegid() {
				t.Errorf("file outside has mode %v, group %d", mode, owner.Gid)
			}
		})
	}
}

func TestShareRefusesLinkedDirectory(t *testing.T) {
	real, link := t.TempDir(), filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	if err := share(link, testGroup(), isArchive); err == nil {
		t.Error("no error")
	}
}

func TestGiveState(t *testing.T) {
	uid := os.Geteuid()
	if uid == 0 {
		uid = 10001
	}
	dir := t.TempDir()
	state := filepath.Join(dir, "state")
	// The second time it is there, as after every restart.
	for range 2 {
		if err := giveState(dir, uid, testGroup()); err != nil {
			t.Fatal(err)
		}
		if mode, owner := modeAndOwner(t, state); mode != fs.ModeDir|0o700 || int(owner.Uid) != uid {
			t.Errorf("mode %v, owner %d", mode, owner.Uid)
		}
	}
	if err := os.Remove(state); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(t.TempDir(), state); err != nil {
		t.Fatal(err)
	}
	if err := giveState(dir, uid, testGroup()); err == nil {
		t.Error("followed a link")
	}
}

func TestGroups(t *testing.T) {
	dir := t.TempDir()
	socket := func(name string, mode fs.FileMode) string {
		path := filepath.Join(dir, name)
		if err := syscall.Mknod(path, syscall.S_IFSOCK|uint32(mode), 0); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	_, owner := modeAndOwner(t, socket("probe", 0o660))
	file := filepath.Join(dir, "file")
	write(t, file, 0o660)
	tests := []struct{ name, socket, want string }{
		{"not mounted", filepath.Join(dir, "none"), "10001"},
		{"a directory, as engines make of a missing path", dir, "10001"},
		{"a file", file, "10001"},
		{"group may not write", socket("closed", 0o600), "10001"},
		{"socket", socket("open", 0o660), "10001," + strconv.FormatUint(uint64(owner.Gid), 10)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := places{hostSocket: tt.socket, gid: 10001, log: zaptest.NewLogger(t)}
			before, wasErr := os.Lstat(tt.socket)
			if got := p.groups(); got != tt.want {
				t.Errorf("groups %q, want %q", got, tt.want)
			}
			after, err := os.Lstat(tt.socket)
			if wasErr == nil && (err != nil || before.Mode() != after.Mode()) {
				t.Error("the host's socket was changed")
			}
		})
	}
}

package hosttest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Build compiles programs of the module into one directory below out/, which
// all tests share, and returns it. What is up to date is not built again.
func Build(t testing.TB, dir string, packages ...string) string {
	t.Helper()
	module, err := exec.CommandContext(t.Context(), "go", "env", "GOMOD").Output()
	if err != nil {
		t.Fatalf("find module: %v", err)
	}
	path := filepath.Join(filepath.Dir(strings.TrimSpace(string(module))), "out", "test", dir)
	if err := os.MkdirAll(path, 0o750); err != nil {
		t.Fatal(err)
	}
	// Tests of several packages run at once.
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	build := exec.CommandContext(t.Context(), "go", append([]string{"build", "-o", path + "/"}, packages...)...)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build %v: %v\n%s", packages, err, out)
	}
	return path
}

// Plugins returns a directory with the CNI plug-ins.
func Plugins(t testing.TB) string {
	t.Helper()
	const upstream = "github.com/containernetworking/plugins/plugins/"
	return Build(t, "cni", upstream+"main/bridge", upstream+"ipam/host-local", "honeysens.org/dockersensor/cni/offload")
}

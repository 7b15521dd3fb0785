package host

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"honeysens.org/dockersensor/shared/nettest"
)

// newLab returns a lab of this test, whose programs are built.
func newLab(t *testing.T) *Lab {
	t.Helper()
	nettest.Need(t, "ip", "nsenter", "unshare", "dockerd", "runc", "docker", "nft", "ping")
	dir := t.TempDir()
	runtime := filepath.Join(dir, "runcshim")
	build(t, runtime, "./runcshim")
	// Compose is not used here, but the lab wants it to be there.
	lab, err := New(Config{Prefix: "labtest", Dir: filepath.Join(dir, "lab"), Runtime: runtime, Compose: runtime})
	if err != nil {
		t.Fatal(err)
	}
	return lab
}

func build(t *testing.T, to, pkg string) {
	t.Helper()
	cmd := exec.Command("go", "build", "-o", to, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if err := output(cmd); err != nil {
		t.Fatal(err)
	}
}

func up(t *testing.T, lab *Lab) {
	t.Helper()
	t.Cleanup(func() {
		if err := lab.Down(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("take the lab down: %v", err)
		}
	})
	if err := lab.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// machine describes what the lab must leave as it was.
func machine(t *testing.T) map[string]string {
	t.Helper()
	state := map[string]string{}
	for name, command := range map[string]string{
		"namespaces": "ip netns list",
		"links":      "ip -o link",
		"rules":      "nft list ruleset",
		"mounts":     "cut -d' ' -f5 /proc/self/mountinfo",
		"processes":  "grep -ls 'labtes[t]' /proc/[0-9]*/cmdline",
		"cgroups":    "find /sys/fs/cgroup -type d -name 'honeysens-labtest'",
	} {
		// A search that finds nothing is no failure here.
		text, _ := exec.Command("sh", "-c", command).CombinedOutput()
		state[name] = string(text)
	}
	return state
}

func TestNetnsLabConnectsItsHosts(t *testing.T) {
	lab := newLab(t)
	up(t, lab)
	for _, addr := range []string{SensorV4, SensorV6, ServerV4, ServerV6} {
		if err := output(lab.Command(t.Context(), Attacker, "ping", "-c1", "-W5", addr)); err != nil {
			t.Error(err)
		}
	}
	if err := output(lab.Command(t.Context(), Attacker, "ping", "-c1", "-W1", "198.51.100.1")); err == nil {
		t.Error("the lab has a way out")
	}
}

func TestEngineLabRunsPrivilegedContainers(t *testing.T) {
	lab := newLab(t)
	up(t, lab)
	load(t, lab, "probe")
	out, err := lab.Docker(t.Context(), "run", "--rm", "--privileged", "--network=host", "probe").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if !strings.Contains(string(out), Interface) {
		t.Errorf("the container is not on the sensor host: %s", out)
	}
}

func TestEngineLabLeavesNothing(t *testing.T) {
	lab := newLab(t)
	// What another test was killed over.
	if err := lab.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := machine(t)
	up(t, lab)
	load(t, lab, "probe")
	for name, network := range map[string]string{"own": "bridge", "none": "none", "host": "host"} {
		if err := output(lab.Docker(t.Context(), "run", "-d", "--name", name, "--network", network, "probe", "stay")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := lab.Start(Server, "sleeper", "sleep", "1000"); err != nil {
		t.Fatal(err)
	}
	// What a lab that was killed leaves is what one that is up is.
	if err := lab.Up(t.Context()); err != nil {
		t.Fatalf("up over a lab that is up: %v", err)
	}
	if err := lab.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, machine(t)); diff != "" {
		t.Errorf("the machine is not as it was (-before +after):\n%s", diff)
	}
	if _, err := os.Stat(lab.Dir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the lab's directory is still there: %v", err)
	}
	if err := lab.Down(t.Context()); err != nil {
		t.Errorf("down without a lab: %v", err)
	}
}

// load makes an image of one static program.
func load(t *testing.T, lab *Lab, image string) {
	t.Helper()
	program := filepath.Join(t.TempDir(), "probe")
	build(t, program, "./testdata/probe")
	text, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	out := tar.NewWriter(&archive)
	if err := out.WriteHeader(&tar.Header{Name: "probe", Mode: 0o755, Size: int64(len(text))}); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	cmd := lab.Docker(t.Context(), "import", "--change", `ENTRYPOINT ["/probe"]`, "-", image)
	cmd.Stdin = &archive
	if err := output(cmd); err != nil {
		t.Fatal(err)
	}
}

func TestNewRefusesPrefixes(t *testing.T) {
	for _, prefix := range []string{"../etc", "Lab", "1lab", "muchtoolong"} {
		t.Run(prefix, func(t *testing.T) {
			if _, err := New(Config{Prefix: prefix, Dir: "d", Runtime: "r", Compose: "c"}); err == nil {
				t.Error("no error")
			}
		})
	}
}

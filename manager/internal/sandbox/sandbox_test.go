package sandbox

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// inside names the variable that turns the test binary into the confined
// process: a sandbox cannot be left again, so it needs a process of its own.
const inside = "SANDBOX_TEST_WRITABLE"

func TestMain(m *testing.M) {
	if dir := os.Getenv(inside); dir != "" {
		if err := confined(dir); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// confined enters the sandbox and tries what must and must not work there.
func confined(dir string) error {
	if err := Enter([]string{dir}); err != nil {
		return err
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for _, want := range []string{"CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "CapAmb:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !strings.Contains(string(status), want) {
			return fmt.Errorf("status lacks %q", want)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o600); err != nil {
		return fmt.Errorf("write below the writable directory: %w", err)
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(dir), "outside"), []byte("x"), 0o600); err == nil && landlocked() {
		return errors.New("a file outside could be written")
	}
	if err := unix.Unshare(unix.CLONE_NEWUSER); !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("unshare: %w, want EPERM", err)
	}
	if fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, protocolMPTCP); !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("MPTCP socket %d: %w, want EPERM", fd, err)
	}
	return roundTrip()
}

// landlocked tells whether the kernel has Landlock at all.
func landlocked() bool {
	version, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	return errno == 0 && version > 0
}

// roundTrip shows that the network still works.
func roundTrip() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer listener.Close()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		return err
	}
	return conn.Close()
}

func TestEnter(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "writable")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), inside+"="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("confined process: %v\n%s", err, out)
	}
}

func TestEnterWantsItsDirectories(t *testing.T) {
	if err := confineWrites([]string{filepath.Join(t.TempDir(), "missing")}); err == nil {
		t.Fatal("a missing directory was accepted")
	}
}

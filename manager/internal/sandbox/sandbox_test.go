package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// inside names the variable that turns the test binary into the confined
// process: a sandbox cannot be left again, so it needs a process of its own.
const inside = "SANDBOX_TEST_DIR"

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
	foreign, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	ports, err := freePorts(2)
	if err != nil {
		return err
	}
	err = Enter(Config{
		Writable: []string{filepath.Join(dir, "writable")}, Readable: []string{filepath.Join(dir, "readable"), filepath.Join(dir, "missing")},
		Bind: ports[:1], Connect: ports[:1],
	})
	if err != nil {
		return err
	}
	var all []error
	for name, check := range map[string]func() error{
		"status":                        wantStatus,
		"write below its directory":     func() error { return os.WriteFile(filepath.Join(dir, "writable", "file"), []byte("x"), 0o600) },
		"read what was named":           func() error { return read(filepath.Join(dir, "readable")) },
		"resolve names":                 func() error { return read("/etc/nsswitch.conf") },
		"a thread of its own":           thread,
		"its own ports":                 func() error { return roundTrip(ports[0]) },
		"write outside":                 refused(func() error { return os.WriteFile(filepath.Join(dir, "outside"), []byte("x"), 0o600) }),
		"write what it may read":        refused(func() error { return os.WriteFile(filepath.Join(dir, "readable"), []byte("x"), 0o600) }),
		"read another's file":           refused(func() error { return read(filepath.Join(dir, "secret")) }),
		"list another directory":        refused(func() error { _, err := os.ReadDir(dir); return err }),
		"a symbolic link":               refused(func() error { return os.Symlink("/etc/shadow", filepath.Join(dir, "writable", "link")) }),
		"listen at another port":        refused(func() error { return listen(ports[1]) }),
		"connect to another port":       refused(func() error { return dial(foreign.Addr().String()) }),
		"MPTCP":                         refused(func() error { return socket(unix.AF_INET, unix.SOCK_STREAM, protocolMPTCP) }),
		"raw socket":                    refused(func() error { return socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_TCP) }),
		"packet socket":                 refused(func() error { return socket(unix.AF_PACKET, unix.SOCK_RAW, 0) }),
		"socket of the kernel's crypto": refused(func() error { return socket(unix.AF_ALG, unix.SOCK_SEQPACKET, 0) }),
		"another program":               refused(func() error { return exec.CommandContext(context.Background(), "/bin/true").Run() }),
		"become another program":        refused(func() error { return unix.Exec("/bin/true", []string{"true"}, nil) }),
		"ptrace":                        refused(func() error { return unix.PtraceAttach(os.Getppid()) }),
		"another's memory":              refused(func() error { return read(fmt.Sprintf("/proc/%d/mem", os.Getppid())) }),
		"user namespace":                refused(func() error { return unix.Unshare(unix.CLONE_NEWUSER) }),
		"mount":                         refused(func() error { return unix.Mount("tmpfs", dir, "tmpfs", 0, "") }),
		"another user":                  refused(func() error { return unix.Chown(filepath.Join(dir, "writable"), 4711, 4711) }),
		"change the clock":              refused(func() error { return unix.Settimeofday(&unix.Timeval{Sec: 1}) }),
		"core dumps":                    wantNoCores,
	} {
		if err := check(); err != nil {
			all = append(all, fmt.Errorf("%s: %w", name, err))
		}
	}
	return errors.Join(all...)
}

// refused turns an attempt into a check that it is not allowed.
func refused(attempt func() error) func() error {
	return func() error {
		err := attempt()
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
			return nil
		}
		return fmt.Errorf("got %w, want a refusal", orNil(err))
	}
}

var errNone = errors.New("no error")

func orNil(err error) error {
	if err == nil {
		return errNone
	}
	return err
}

func wantStatus() error {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for _, want := range []string{
		"CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "CapInh:\t0000000000000000", "CapAmb:\t0000000000000000",
		"NoNewPrivs:\t1", "Seccomp:\t2",
	} {
		if !strings.Contains(string(status), want) {
			return fmt.Errorf("lacks %q", want)
		}
	}
	return nil
}

func wantNoCores() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &limit); err != nil || limit.Max != 0 {
		return fmt.Errorf("limit %d, %w", limit.Max, orNil(err))
	}
	if dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || dumpable != 0 {
		return fmt.Errorf("dumpable %d, %w", dumpable, orNil(err))
	}
	return nil
}

func read(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	return file.Close()
}

// thread shows that Go can still start threads.
func thread() error {
	done := make(chan error)
	for range 8 {
		go func() { done <- syscall.Nanosleep(&syscall.Timespec{Nsec: int64(time.Millisecond)}, nil) }()
	}
	var all []error
	for range 8 {
		all = append(all, <-done)
	}
	return errors.Join(all...)
}

func socket(family, kind, protocol int) error {
	fd, err := unix.Socket(family, kind, protocol)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func listen(port uint16) error {
	var cfg net.ListenConfig
	cfg.SetMultipathTCP(false)
	listener, err := cfg.Listen(context.Background(), "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return err
	}
	return listener.Close()
}

func dial(address string) error {
	conn, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}

// roundTrip shows that the network still works.
func roundTrip(port uint16) error {
	var cfg net.ListenConfig
	cfg.SetMultipathTCP(false)
	listener, err := cfg.Listen(context.Background(), "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return err
	}
	defer listener.Close()
	return dial(listener.Addr().String())
}

func freePorts(n int) ([]uint16, error) {
	var ports []uint16
	for range n {
		listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer listener.Close()
		ports = append(ports, listener.Addr().(*net.TCPAddr).AddrPort().Port())
	}
	return ports, nil
}

// TestEnter tries all of it as the user that the tests run as. As root this also
// shows that it is not the file's mode that refuses.
func TestEnter(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "writable"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"readable", "secret"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), inside+"="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("confined process: %v\n%s", err, out)
	}
}

func TestEnterWantsItsDirectories(t *testing.T) {
	if err := confine(Config{Writable: []string{filepath.Join(t.TempDir(), "missing")}}); err == nil {
		t.Fatal("a missing directory was accepted")
	}
}

package confine

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"
)

// inside names the variable that turns the test binary into the confined
// process, which cannot be freed again, and says what it tries.
const inside = "CONFINE_TEST_TRIES"

func TestMain(m *testing.M) {
	name := os.Getenv(inside)
	if name == "" {
		os.Exit(m.Run())
	}
	err := Enter()
	if err == nil {
		err = confined(name)
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

// confined tries one thing in the confined process.
func confined(name string) error {
	if name == "works" {
		return works()
	}
	if call, ok := forbidden()[name]; ok {
		call()
		return fmt.Errorf("%s: still alive", name)
	}
	return fmt.Errorf("nothing is called %s", name)
}

// forbidden are the ways out that the helper's capabilities alone would leave
// open, and some that none is needed for.
func forbidden() map[string]func() {
	raw := func(number uintptr, args ...uintptr) func() {
		args = append(args, make([]uintptr, 6)...)
		return func() { _, _, _ = unix.Syscall6(number, args[0], args[1], args[2], args[3], args[4], args[5]) }
	}
	return map[string]func(){
		"ptrace":            raw(unix.SYS_PTRACE, unix.PTRACE_ATTACH, 1),
		"mount":             raw(unix.SYS_MOUNT),
		"open_tree":         raw(unix.SYS_OPEN_TREE),
		"fsopen":            raw(unix.SYS_FSOPEN),
		"umount":            raw(unix.SYS_UMOUNT2),
		"pivot_root":        raw(unix.SYS_PIVOT_ROOT),
		"chroot":            raw(unix.SYS_CHROOT),
		"unshare":           raw(unix.SYS_UNSHARE, unix.CLONE_NEWUSER),
		"bpf":               raw(unix.SYS_BPF),
		"perf_event_open":   raw(unix.SYS_PERF_EVENT_OPEN),
		"init_module":       raw(unix.SYS_INIT_MODULE),
		"finit_module":      raw(unix.SYS_FINIT_MODULE),
		"kexec_load":        raw(unix.SYS_KEXEC_LOAD),
		"reboot":            raw(unix.SYS_REBOOT),
		"keyctl":            raw(unix.SYS_KEYCTL),
		"io_uring_setup":    raw(unix.SYS_IO_URING_SETUP),
		"userfaultfd":       raw(unix.SYS_USERFAULTFD),
		"process_vm_readv":  raw(unix.SYS_PROCESS_VM_READV, 1),
		"process_vm_writev": raw(unix.SYS_PROCESS_VM_WRITEV, 1),
		"pidfd_getfd":       raw(unix.SYS_PIDFD_GETFD),
		"open_by_handle_at": raw(unix.SYS_OPEN_BY_HANDLE_AT),
		"setuid":            raw(unix.SYS_SETUID),
		"mknodat":           raw(unix.SYS_MKNODAT),
		"memfd_create":      raw(unix.SYS_MEMFD_CREATE),
		"execveat":          raw(unix.SYS_EXECVEAT),
		"another filter":    raw(unix.SYS_SECCOMP),
		"number of nothing": raw(100_000),
		// Into other namespaces than the network's, also when the upper half of
		// the flags, which the kernel does not look at, says something else.
		"setns, mounts":      raw(unix.SYS_SETNS, 0, unix.CLONE_NEWNS),
		"setns, any":         raw(unix.SYS_SETNS, 0, 0),
		"setns, net and pid": raw(unix.SYS_SETNS, 0, unix.CLONE_NEWNET|unix.CLONE_NEWPID),
		"setns, disguised":   raw(unix.SYS_SETNS, 0, unix.CLONE_NEWNS|unix.SYS_CLONE<<32),
		"clone, namespace":   raw(unix.SYS_CLONE, unix.CLONE_NEWUSER|uintptr(unix.SIGCHLD)),
	}
}

func TestForbiddenCallsEndTheProcess(t *testing.T) {
	for name := range forbidden() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, err := confine(t, name)
			var ended *exec.ExitError
			if !errors.As(err, &ended) || ended.Sys().(syscall.WaitStatus).Signal() != unix.SIGSYS {
				t.Errorf("ended with %v, want SIGSYS: %s", err, out)
			}
		})
	}
}

func TestTheRestWorks(t *testing.T) {
	if out, err := confine(t, "works"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func confine(t *testing.T, what string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), inside+"="+what)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// works does within the sandbox what the helper lives on, and what must fail
// without an end.
func works() error {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for _, want := range []string{"CapInh:\t0000000000000000", "CapAmb:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !strings.Contains(string(status), want) {
			return fmt.Errorf("no %q in %s", want, status)
		}
	}
	names, err := Effective()
	if err != nil || len(names) > len(needed()) {
		return fmt.Errorf("capabilities %v, %w", names, err)
	}
	var args [11]uint64
	if _, _, code := unix.Syscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&args)), unsafe.Sizeof(args), 0); code != unix.ENOSYS {
		return fmt.Errorf("clone3: %w, want ENOSYS", code)
	}
	if _, err := unix.Socket(unix.AF_ALG, unix.SOCK_SEQPACKET, 0); !errors.Is(err, unix.EAFNOSUPPORT) {
		return fmt.Errorf("socket for another family: %w, want EAFNOSUPPORT", err)
	}
	if out, err := exec.Command("/bin/sh", "-c", "x=$(echo child); echo $x").CombinedOutput(); err != nil || string(out) != "child\n" {
		return fmt.Errorf("child: %q, %w", out, err)
	}
	return talk()
}

func talk() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer listener.Close()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER)
	if err != nil {
		return errors.Join(fmt.Errorf("netlink: %w", err), conn.Close())
	}
	return errors.Join(unix.Close(fd), conn.Close())
}

// TestPoliciesForArchitectures assembles the filters for every machine that a
// sensor may run on, which tells when one has no such call.
func TestPoliciesForArchitectures(t *testing.T) {
	for _, name := range []string{"amd64", "arm64", "arm", "386", "riscv64"} {
		info, err := arch.GetInfo(name)
		if err != nil {
			t.Logf("%s: %v", name, err)
			continue
		}
		for _, call := range []string{"openat", "setns", "clone", "socket", "execve", "futex"} {
			if _, ok := info.SyscallNames[call]; !ok {
				t.Errorf("%s has no %s", name, call)
			}
		}
		for _, call := range allowList(info).Syscalls[1].Names {
			if slices.Contains([]string{"mount", "ptrace", "unshare", "bpf", "seccomp"}, call) {
				t.Errorf("%s: %s is allowed", name, call)
			}
		}
	}
}

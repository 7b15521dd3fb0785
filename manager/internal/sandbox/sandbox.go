// Package sandbox takes away from the manager what it never needs, before it
// reads the first byte from the network: capabilities, new privileges, other
// programs, dangerous system calls, files outside of a few directories, TCP
// ports that nobody named, and core dumps, which would hold secrets.
//
// What it cannot take away on an older kernel it leaves to the layers around
// it, and says so in its report; it never goes on after an error.
package sandbox

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"unsafe"

	"github.com/elastic/go-seccomp-bpf"
	"github.com/landlock-lsm/go-landlock/landlock"
	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/psx"
)

// Config is what stays allowed.
type Config struct {
	// Writable are directories below which files can be read and changed; they
	// must exist.
	Writable []string
	// Readable are files and directories that can be read, besides those of the
	// system; what is missing is left out.
	Readable []string
	// Bind are the TCP ports to listen at, 0 for any that the kernel chooses,
	// and Connect those to connect to.
	Bind, Connect []uint16
}

// Enter confines the whole process, for good.
func Enter(cfg Config) error {
	for _, step := range []func() error{
		forbidCores, dropCapabilities, forbidNewPrivileges,
		func() error { return confine(cfg) }, filterSyscalls,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// forbidCores also keeps other processes of the same user from looking into
// this one (PR_SET_DUMPABLE, prctl(2)).
func forbidCores() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbid core dumps: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid core dumps: %w", err)
	}
	return nil
}

// dropCapabilities empties all sets of all threads. The bounding set goes first
// while that is still allowed; without CAP_SETPCAP it stays, and is of no use
// once no_new_privs is set.
func dropCapabilities() error {
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		_, _, errno := psx.Syscall3(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, c, 0)
		if errno != 0 && !errors.Is(errno, unix.EPERM) && !errors.Is(errno, unix.EINVAL) {
			return fmt.Errorf("drop capability %d from the bounding set: %w", c, errno)
		}
	}
	if _, _, errno := psx.Syscall6(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0, 0); errno != 0 {
		return fmt.Errorf("clear ambient capabilities: %w", errno)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	_, _, errno := psx.Syscall3(unix.SYS_CAPSET,
		uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&none[0])), 0) // #nosec G103 -- capset(2) takes pointers
	if errno != 0 {
		return fmt.Errorf("drop capabilities: %w", errno)
	}
	return nil
}

func forbidNewPrivileges() error {
	if _, _, errno := psx.Syscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); errno != 0 {
		return fmt.Errorf("set no_new_privs: %w", errno)
	}
	return nil
}

// system are directories whose files say how to resolve names, which
// certificates and time zones there are, and what the host is like. Whole
// directories, since a file in /etc that is replaced would be out of reach.
func system() []string { return []string{"/etc", "/proc", "/run", "/sys", "/usr"} }

// confine uses Landlock as far as the kernel has it: files from Linux 5.13 on,
// TCP ports from 6.7 on.
func confine(cfg Config) error {
	rules := []landlock.Rule{landlock.RWFiles("/dev/null").IgnoreIfMissing()}
	for _, dir := range cfg.Writable {
		if _, err := os.Stat(dir); err != nil {
			return fmt.Errorf("confine files: %w", err)
		}
		rules = append(rules, landlock.PathAccess(accessWrite, dir))
	}
	for _, path := range slices.Concat(system(), cfg.Readable) {
		info, err := os.Stat(path)
		if err != nil {
			continue
		}
		if info.IsDir() {
			rules = append(rules, landlock.PathAccess(accessRead, path))
			continue
		}
		rules = append(rules, landlock.PathAccess(accessRead&^unix.LANDLOCK_ACCESS_FS_READ_DIR, path))
	}
	for _, port := range cfg.Bind {
		rules = append(rules, landlock.BindTCP(port))
	}
	for _, port := range cfg.Connect {
		rules = append(rules, landlock.ConnectTCP(port))
	}
	if err := landlock.V5.BestEffort().Restrict(rules...); err != nil {
		return fmt.Errorf("confine files to %v and TCP to ports %v and %v: %w", cfg.Writable, cfg.Bind, cfg.Connect, err)
	}
	return nil
}

// What Landlock grants below a directory; never to execute, nor to make links
// and device nodes.
const (
	accessRead  = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	accessWrite = accessRead | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE |
		unix.LANDLOCK_ACCESS_FS_REMOVE_FILE | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR |
		unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_SOCK
)

// protocolMPTCP is refused since it slips past Landlock's rules for TCP, and Go
// listens with it by default.
const protocolMPTCP = 262

// filterSyscalls refuses what would lead out of the sandbox or deep into the
// kernel. Everything is refused with EPERM rather than by a kill, so that a
// library that probes for a feature goes on without it.
func filterSyscalls() error {
	refused := seccomp.ActionErrno | seccomp.Action(unix.EPERM)
	filter := seccomp.Filter{
		NoNewPrivs: true,
		Flag:       seccomp.FilterFlagTSync,
		Policy: seccomp.Policy{
			DefaultAction: seccomp.ActionAllow,
			Syscalls: []seccomp.SyscallGroup{
				{Action: refused, Names: []string{
					"acct", "add_key", "adjtimex", "bpf", "chroot", "clock_adjtime", "clock_settime", "delete_module",
					"fanotify_init", "finit_module", "fsconfig", "fsmount", "fsopen", "fspick", "init_module",
					"io_uring_enter", "io_uring_register", "io_uring_setup", "kcmp", "kexec_file_load", "kexec_load",
					"keyctl", "lookup_dcookie", "mount", "mount_setattr", "move_mount", "name_to_handle_at",
					"open_by_handle_at", "open_tree", "perf_event_open", "pidfd_getfd", "pivot_root", "process_vm_readv",
					"process_vm_writev", "ptrace", "quotactl", "reboot", "request_key", "setdomainname", "sethostname",
					"setns", "settimeofday", "swapoff", "swapon", "syslog", "umount2", "unshare", "userfaultfd", "vhangup",
				}},
				{Action: refused, Names: []string{"execve", "execveat", "fork", "vfork"}},
				// Its flags are out of a filter's sight; the C library and Go fall
				// back on clone.
				{Action: seccomp.ActionErrno | seccomp.Action(unix.ENOSYS), Names: []string{"clone3"}},
				{Action: refused, NamesWithCondtions: []seccomp.NameWithConditions{
					{Name: "clone", Conditions: seccomp.ArgumentConditions{
						{Argument: 0, Operation: seccomp.BitsNotSet, Value: unix.CLONE_THREAD},
					}},
					{Name: "socket", Conditions: seccomp.ArgumentConditions{
						{Argument: 2, Operation: seccomp.Equal, Value: protocolMPTCP},
					}},
					{Name: "socket", Conditions: seccomp.ArgumentConditions{
						{Argument: 0, Operation: seccomp.NotEqual, Value: unix.AF_UNIX},
						{Argument: 0, Operation: seccomp.NotEqual, Value: unix.AF_INET},
						{Argument: 0, Operation: seccomp.NotEqual, Value: unix.AF_INET6},
						{Argument: 0, Operation: seccomp.NotEqual, Value: unix.AF_NETLINK},
					}},
				}},
			},
		},
	}
	if err := seccomp.LoadFilter(filter); err != nil {
		return fmt.Errorf("filter system calls: %w", err)
	}
	return nil
}

// Package sandbox takes away from the manager what it never needs, before it
// reads the first byte that somebody else wrote: capabilities, new privileges,
// dangerous system calls, and writing outside of its own directories.
//
// What it cannot take away on an older kernel it leaves to the layers around
// it, and says so in its report; it never goes on after an error.
package sandbox

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"github.com/elastic/go-seccomp-bpf"
	"github.com/landlock-lsm/go-landlock/landlock"
	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/psx"
)

// Enter confines the whole process, for good. Only below the writable
// directories, which must exist, can files be changed afterwards.
func Enter(writable []string) error {
	if err := dropCapabilities(); err != nil {
		return err
	}
	if err := forbidNewPrivileges(); err != nil {
		return err
	}
	if err := confineWrites(writable); err != nil {
		return err
	}
	return filterSyscalls()
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

// confineWrites uses Landlock as far as the kernel has it.
func confineWrites(writable []string) error {
	for _, dir := range writable {
		if _, err := os.Stat(dir); err != nil {
			return fmt.Errorf("confine writes: %w", err)
		}
	}
	err := landlock.V5.BestEffort().RestrictPaths(
		landlock.RODirs("/"),
		landlock.RWDirs(writable...),
		landlock.RWFiles("/dev/null").IgnoreIfMissing(),
	)
	if err != nil {
		return fmt.Errorf("confine writes to %v: %w", writable, err)
	}
	return nil
}

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
				{Action: refused, NamesWithCondtions: []seccomp.NameWithConditions{
					{Name: "socket", Conditions: seccomp.ArgumentConditions{
						{Argument: 2, Operation: seccomp.Equal, Value: protocolMPTCP},
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

package confine

import (
	"fmt"
	"slices"

	"github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"
)

// filterSyscalls lets through what the helper and its children use, and ends
// the process at anything else: none of them probes for more than this, so
// whoever asks is not the program that was started. Children inherit it.
func filterSyscalls() error {
	info, err := arch.GetInfo("")
	if err != nil {
		return fmt.Errorf("filter system calls: %w", err)
	}
	for _, policy := range policies(info) {
		err := seccomp.LoadFilter(seccomp.Filter{NoNewPrivs: true, Flag: seccomp.FilterFlagTSync, Policy: policy})
		if err != nil {
			return fmt.Errorf("filter system calls: %w", err)
		}
	}
	return nil
}

// policies returns the filters for an architecture in the order in which they
// are to be loaded. The kernel asks all of them and takes the strictest answer.
//
// There is a filter of its own for each call that depends on its arguments: the
// code for one compares what comes after it with an argument instead of the
// number of the call. The last filter does not let a further one be loaded.
func policies(info *arch.Info) []seccomp.Policy {
	return []seccomp.Policy{
		{DefaultAction: seccomp.ActionAllow, Syscalls: []seccomp.SyscallGroup{conditional(seccomp.ActionKillProcess, "setns", otherNamespaces())}},
		{DefaultAction: seccomp.ActionAllow, Syscalls: []seccomp.SyscallGroup{conditional(seccomp.ActionKillProcess, "clone", newNamespaces())}},
		{DefaultAction: seccomp.ActionAllow, Syscalls: []seccomp.SyscallGroup{conditional(errno(unix.EAFNOSUPPORT), "socket", otherFamilies())}},
		allowList(info),
	}
}

// allowList ends the process at calls that it does not name, and at those of
// another architecture, such as the 32-bit ones of a 64-bit machine.
func allowList(info *arch.Info) seccomp.Policy {
	return seccomp.Policy{
		DefaultAction: seccomp.ActionKillProcess,
		Syscalls: []seccomp.SyscallGroup{
			// Programs come back to clone(2), whose flags a filter can see.
			{Action: errno(unix.ENOSYS), Names: known(info, []string{"clone3"})},
			{Action: seccomp.ActionAllow, Names: known(info, slices.Concat(
				filesAndPaths(), descriptors(), memory(), processes(), signalsAndTime(), network(),
			))},
		},
	}
}

func errno(code unix.Errno) seccomp.Action { return seccomp.ActionErrno | seccomp.Action(code) }

// known leaves out what the architecture does not have, such as open(2) on
// arm64.
func known(info *arch.Info, names []string) []string {
	return slices.DeleteFunc(names, func(name string) bool {
		_, ok := info.SyscallNames[name]
		return !ok
	})
}

func conditional(action seccomp.Action, call string, conditions seccomp.ArgumentConditions) seccomp.SyscallGroup {
	return seccomp.SyscallGroup{Action: action, NamesWithCondtions: []seccomp.NameWithConditions{{Name: call, Conditions: conditions}}}
}

// otherNamespaces than the network's: not those of a service's processes, nor
// the host's file system.
func otherNamespaces() seccomp.ArgumentConditions {
	return seccomp.ArgumentConditions{{Argument: 1, Operation: seccomp.NotEqual, Value: unix.CLONE_NEWNET}}
}

func newNamespaces() seccomp.ArgumentConditions {
	const all = unix.CLONE_NEWCGROUP | unix.CLONE_NEWIPC | unix.CLONE_NEWNET | unix.CLONE_NEWNS |
		unix.CLONE_NEWPID | unix.CLONE_NEWUSER | unix.CLONE_NEWUTS
	return seccomp.ArgumentConditions{{Argument: 0, Operation: seccomp.BitsSet, Value: all}}
}

func otherFamilies() seccomp.ArgumentConditions {
	var all seccomp.ArgumentConditions
	for _, family := range []uint64{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK, unix.AF_PACKET} {
		all = append(all, seccomp.Condition{Argument: 0, Operation: seccomp.NotEqual, Value: family})
	}
	return all
}

func filesAndPaths() []string {
	return []string{
		"access", "chdir", "chmod", "chown", "faccessat", "faccessat2", "fchmod", "fchmodat", "fchown", "fchownat", "fdatasync", "fstat", "fstatfs",
		"fsync", "ftruncate", "getcwd", "getdents64", "lstat", "mkdir", "mkdirat", "newfstatat", "open", "openat", "openat2", "readlink", "readlinkat",
		"rename", "renameat", "renameat2", "rmdir", "stat", "statfs", "statx", "umask", "unlink", "unlinkat", "utimensat",
	}
}

func descriptors() []string {
	return []string{
		"close", "close_range", "copy_file_range", "dup", "dup2", "dup3", "epoll_create", "epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_pwait2", "epoll_wait",
		"eventfd2", "fadvise64", "fallocate", "fcntl", "flock", "ioctl", "lseek", "pipe", "pipe2", "poll", "ppoll", "pread64", "preadv", "pselect6", "pwrite64",
		"pwritev", "read", "readv", "select", "sendfile", "splice", "timerfd_create", "timerfd_settime", "write", "writev",
	}
}

func memory() []string {
	return []string{"brk", "madvise", "mincore", "mlock", "mmap", "mprotect", "mremap", "munlock", "munmap"}
}

// processes: children are plug-ins, wpa_supplicant and iptables-legacy.
func processes() []string {
	return []string{
		"arch_prctl", "capget", "clone", "execve", "exit", "exit_group", "fork", "getegid", "geteuid", "getgid", "getgroups", "getpgrp", "getpid",
		"getppid", "getpriority", "getresgid", "getresuid", "getrlimit", "getrusage", "getsid", "gettid", "getuid", "kill", "pidfd_open",
		"pidfd_send_signal", "prctl", "prlimit64", "sched_getaffinity", "sched_yield", "setns", "setpgid", "setrlimit", "setsid", "sysinfo", "uname",
		"vfork", "wait4", "waitid",
	}
}

func signalsAndTime() []string {
	return []string{
		"alarm", "clock_getres", "clock_gettime", "clock_nanosleep", "futex", "get_robust_list", "getitimer", "getrandom", "gettimeofday",
		"membarrier", "nanosleep", "restart_syscall", "rseq", "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigreturn",
		"rt_sigsuspend", "rt_sigtimedwait", "set_robust_list", "set_tid_address", "setitimer", "sigaltstack", "tgkill", "time",
		"timer_create", "timer_delete", "timer_settime",
	}
}

func network() []string {
	return []string{
		"accept", "accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt", "listen", "recvfrom", "recvmmsg", "recvmsg",
		"sendmmsg", "sendmsg", "sendto", "setsockopt", "shutdown", "socket", "socketpair",
	}
}

package doctor

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"
)

// landlockTCP is the ABI of Landlock from which on it knows TCP ports (Linux
// 6.7).
const landlockTCP = 4

// features are what the kernel can do besides its version.
type features struct {
	// netfilter is why rules cannot be spoken about, or nil.
	netfilter error
	// landlock is its ABI, 0 for none.
	landlock int
}

func (d *Doctor) examineFeatures(context.Context) { d.judgeFeatures(kernelFeatures()) }

func (d *Doctor) judgeFeatures(f features) {
	const check = "kernel features"
	if f.netfilter != nil {
		d.problem(check, "use a kernel with nftables (CONFIG_NF_TABLES), and let the host load its module nfnetlink: attackers are led to honeypots by its rules",
			"netfilter cannot be reached: %v", f.netfilter)
	}
	switch {
	case f.landlock == 0:
		d.note(check, "nothing has to be done; a kernel with Landlock in its `lsm=` list makes the sensor's sandbox tighter", "there is no Landlock: seccomp and user confine the manager alone")
	case f.landlock < landlockTCP:
		d.note(check, "nothing has to be done; from Linux 6.7 on the sandbox covers TCP ports, too", "Landlock has version %d: the manager's files are confined, its ports are not", f.landlock)
	case f.netfilter == nil:
		d.ok(check, "netfilter answers, Landlock has version %d", f.landlock)
	}
}

// kernelFeatures asks the running kernel. A socket of netfilter makes it load
// the module, as the rules will.
func kernelFeatures() features {
	var f features
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if f.netfilter = err; err == nil {
		f.netfilter = unix.Close(fd)
	}
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errors.Is(errno, unix.Errno(0)) {
		f.landlock = int(abi)
	}
	return f
}

// Package confine takes away from the helper, and from the programs that it
// starts, what they never need: capabilities, new privileges, and all system
// calls but those that they use. It never goes on after an error.
package confine

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unsafe"

	"github.com/moby/sys/capability"
	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/psx"
)

// needed are the capabilities that stay, with the reason for each.
func needed() []capability.Cap {
	return []capability.Cap{
		capability.CAP_NET_ADMIN, // links, addresses, routes, rules, sysctls, offloads
		capability.CAP_NET_RAW,   // packet sockets
		capability.CAP_SYS_ADMIN, // setns(2) into the namespace of a service
		// Opening that namespace by /proc/PID/ns/net, when the container has
		// capabilities that the helper has dropped (ptrace(2), access mode checks).
		capability.CAP_SYS_PTRACE,
	}
}

// Enter confines the whole process and its children, for good.
func Enter() error {
	keep := needed()
	last, err := capability.LastCap()
	if err != nil {
		return fmt.Errorf("last capability: %w", err)
	}
	for c := capability.Cap(0); c <= last; c++ {
		if slices.Contains(keep, c) {
			continue
		}
		// Without CAP_SETPCAP the bounding set stays; with no_new_privs children
		// get no more than the permitted set all the same.
		_, _, errno := psx.Syscall3(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, uintptr(c), 0)
		if errno != 0 && !errors.Is(errno, unix.EPERM) {
			return fmt.Errorf("drop %s from the bounding set: %w", c, errno)
		}
	}
	if _, _, errno := psx.Syscall6(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0, 0); errno != 0 {
		return fmt.Errorf("clear ambient capabilities: %w", errno)
	}
	if err := reduce(keep); err != nil {
		return err
	}
	if _, _, errno := psx.Syscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); errno != 0 {
		return fmt.Errorf("set no_new_privs: %w", errno)
	}
	return filterSyscalls()
}

// reduce leaves those of the permitted capabilities that are to be kept.
func reduce(keep []capability.Cap) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	var mask [2]uint32
	for _, c := range keep {
		mask[c/32] |= 1 << (c % 32)
	}
	for i := range sets {
		sets[i].Permitted &= mask[i]
		sets[i].Effective = sets[i].Permitted
		sets[i].Inheritable = 0
	}
	_, _, errno := psx.Syscall3(unix.SYS_CAPSET,
		uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&sets[0])), 0) // #nosec G103 -- capset(2) takes pointers
	if errno != 0 {
		return fmt.Errorf("reduce capabilities: %w", errno)
	}
	return nil
}

// Effective names the capabilities that the process has, in upper case with
// CAP_ in front.
func Effective() ([]string, error) {
	caps, err := capability.NewPid2(0)
	if err != nil {
		return nil, fmt.Errorf("read capabilities: %w", err)
	}
	if err := caps.Load(); err != nil {
		return nil, fmt.Errorf("read capabilities: %w", err)
	}
	last, err := capability.LastCap()
	if err != nil {
		return nil, fmt.Errorf("last capability: %w", err)
	}
	names := []string{}
	for c := capability.Cap(0); c <= last; c++ {
		if caps.Get(capability.EFFECTIVE, c) {
			names = append(names, "CAP_"+strings.ToUpper(c.String()))
		}
	}
	return names, nil
}

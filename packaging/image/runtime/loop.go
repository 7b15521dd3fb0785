package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// The device that hands out loop devices (Documentation/admin-guide/devices.txt).
const (
	loopControl                       = "/dev/loop-control"
	controlMajor, controlMinor        = 10, 237
	loopFlags                         = unix.LO_FLAGS_AUTOCLEAR
	numberAttempts                    = 20
	deviceMode                 uint32 = unix.S_IFBLK | 0o600
)

// attach gives the file to a loop device, which ends with its last user.
func attach(file *os.File) (*os.File, error) {
	control, err := openDevice(loopControl, unix.S_IFCHR|0o600, unix.Mkdev(controlMajor, controlMinor))
	if err != nil {
		return nil, err
	}
	defer control.Close()
	// Somebody else may take the device between the two steps.
	for range numberAttempts {
		var device *os.File
		device, err = attachFree(control, file)
		if !errors.Is(err, unix.EBUSY) {
			return device, err
		}
	}
	return nil, err
}

func attachFree(control, file *os.File) (*os.File, error) {
	n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return nil, fmt.Errorf("find a free one: %w", err)
	}
	// Its number depends on a parameter of the module.
	text, err := os.ReadFile(fmt.Sprintf("/sys/block/loop%d/dev", n))
	if err != nil {
		return nil, fmt.Errorf("number of loop%d: %w", n, err)
	}
	var major, minor uint32
	if _, err := fmt.Sscanf(strings.TrimSpace(string(text)), "%d:%d", &major, &minor); err != nil {
		return nil, fmt.Errorf("number of loop%d: %w", n, err)
	}
	device, err := openDevice(fmt.Sprintf("/dev/loop%d", n), deviceMode, unix.Mkdev(major, minor))
	if err != nil {
		return nil, err
	}
	if err := configure(int(device.Fd()), int(file.Fd())); err != nil {
		_ = device.Close()
		return nil, fmt.Errorf("set up loop%d: %w", n, err)
	}
	return device, nil
}

// configure gives a file to the device, in one step where the kernel has that
// (since Linux 5.8).
func configure(device, file int) error {
	config := unix.LoopConfig{Fd: uint32(file), Info: unix.LoopInfo64{Flags: loopFlags}} // #nosec G115 -- a descriptor
	err := unix.IoctlLoopConfigure(device, &config)
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOTTY) {
		return err
	}
	if err := unix.IoctlSetInt(device, unix.LOOP_SET_FD, file); err != nil {
		return err
	}
	return unix.IoctlLoopSetStatus64(device, &config.Info)
}

// openDevice opens a device, which in a container may have come after its /dev.
func openDevice(path string, mode uint32, number uint64) (*os.File, error) {
	device, err := os.OpenFile(path, os.O_RDWR, 0)
	if !errors.Is(err, os.ErrNotExist) {
		return device, err
	}
	if err := unix.Mknod(path, mode, int(number)); err != nil && !errors.Is(err, unix.EEXIST) { // #nosec G115 -- two small numbers
		return nil, fmt.Errorf("make %s: %w", path, err)
	}
	return os.OpenFile(path, os.O_RDWR, 0)
}

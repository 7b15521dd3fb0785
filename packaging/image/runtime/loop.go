package main

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const (
	// loopControl hands out loop devices; its number is 10:237
	// (Documentation/admin-guide/devices.txt of the kernel).
	loopControl   = "/dev/loop-control"
	controlNumber = 10<<8 | 237
	controlMode   = unix.S_IFCHR | 0o600
	deviceMode    = unix.S_IFBLK | 0o600
	attempts      = 20
)

// attach gives the file to a loop device, which ends with its last user.
func attach(file *os.File) (*os.File, error) {
	control, err := openDevice(loopControl, controlMode, controlNumber)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	// Somebody else may take the device between the two steps.
	for range attempts {
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
	number, err := numberOf(n)
	if err != nil {
		return nil, err
	}
	device, err := openDevice(fmt.Sprintf("/dev/loop%d", n), deviceMode, number)
	if err != nil {
		return nil, err
	}
	if err := configure(int(device.Fd()), int(file.Fd())); err != nil {
		_ = device.Close()
		return nil, fmt.Errorf("set up loop%d: %w", n, err)
	}
	return device, nil
}

// numberOf returns the number of a loop device, as mknod(2) wants it: it depends
// on a parameter of the module.
func numberOf(n int) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/sys/block/loop%d/dev", n))
	if err != nil {
		return 0, fmt.Errorf("number of loop%d: %w", n, err)
	}
	var major, minor uint32
	if _, err := fmt.Sscanf(string(text), "%d:%d", &major, &minor); err != nil {
		return 0, fmt.Errorf("number of loop%d: %w", n, err)
	}
	return int(unix.Mkdev(major, minor)), nil // #nosec G115 -- below 2^44
}

// configure gives a file to the device, in one step where the kernel has that
// (since Linux 5.8).
func configure(device, file int) error {
	config := unix.LoopConfig{Fd: uint32(file), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}} // #nosec G115 -- a descriptor
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
func openDevice(path string, mode uint32, number int) (*os.File, error) {
	device, err := os.OpenFile(path, os.O_RDWR, 0)
	if !errors.Is(err, os.ErrNotExist) {
		return device, err
	}
	if err := unix.Mknod(path, mode, number); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("make %s: %w", path, err)
	}
	return os.OpenFile(path, os.O_RDWR, 0)
}

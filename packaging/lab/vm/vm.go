// Package vm runs a stock Debian 13 host in a virtual machine, connected to the
// lab by a tap: the host that most sensors are deployed on, with systemd,
// cgroup v2 and all capabilities. It is emulated, so it needs nothing of the
// machine but qemu, and is slow.
package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Address is the machine's in the lab.
const (
	Address   = "192.0.2.40"
	AddressV6 = "2001:db8::40"
)

// bootWithin is how long the machine may take to be reached when the one that
// emulates it is busy.
const bootWithin = 10 * time.Minute

// VM is one virtual machine and its disk, which outlives it.
type VM struct {
	dir       string
	disk      string
	payload   string
	namespace string
	tap       string

	booted  time.Time
	console *os.File
	cmd     *exec.Cmd
	ended   chan error
}

// New takes the disk that build.sh made in dir, as a fresh copy in work. The
// machine's network is the tap, which must exist in the namespace. The payload
// is a file that the machine sees as its second disk.
func New(ctx context.Context, dir, work, payload, namespace, tap string) (*VM, error) {
	disk := filepath.Join(work, "disk.ext4")
	// A copy keeps the holes of the 8 GiB.
	out, err := exec.CommandContext(ctx, "cp", "--sparse=always", filepath.Join(dir, "disk.ext4"), disk).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("copy disk: %w: %s", err, out)
	}
	console, err := os.Create(filepath.Join(work, "console.log"))
	if err != nil {
		return nil, fmt.Errorf("make console log: %w", err)
	}
	return &VM{dir: dir, disk: disk, payload: payload, namespace: namespace, tap: tap, console: console}, nil
}

// Boot switches the machine on and waits until it can be reached by ssh.
func (v *VM) Boot(ctx context.Context) error {
	v.cmd = exec.CommandContext(ctx, "nsenter", "--net=/run/netns/"+v.namespace, "qemu-system-x86_64",
		"-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "4096", "-nographic", "-no-reboot",
		"-kernel", filepath.Join(v.dir, "vmlinuz"), "-initrd", filepath.Join(v.dir, "initrd"),
		"-append", "root=/dev/vda rw console=ttyS0",
		// What the guest flushes reaches the file, what it does not may be gone: as with a real disk.
		"-drive", "file="+v.disk+",format=raw,if=virtio,cache=writeback",
		"-drive", "file="+v.payload+",format=raw,if=virtio,readonly=on",
		"-netdev", "tap,id=lan,ifname="+v.tap+",script=no,downscript=no",
		"-device", "virtio-net-pci,netdev=lan,mac=52:54:00:00:02:14",
	)
	v.cmd.Stdout, v.cmd.Stderr = v.console, v.console
	if err := v.cmd.Start(); err != nil {
		return fmt.Errorf("start qemu: %w", err)
	}
	v.booted = time.Now()
	v.ended = make(chan error, 1)
	go func() { v.ended <- v.cmd.Wait() }()
	return v.Wait(ctx, "true", bootWithin)
}

// Booted is when the machine was last switched on.
func (v *VM) Booted() time.Time { return v.booted }

// PowerCut ends the machine between two instructions.
func (v *VM) PowerCut() error {
	if v.cmd == nil {
		return nil
	}
	if err := v.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill qemu: %w", err)
	}
	<-v.ended
	v.cmd = nil
	return nil
}

// Reboot has the machine end in order and switches it on again.
func (v *VM) Reboot(ctx context.Context) error {
	// The connection may end before its answer does. qemu ends where the machine
	// would start again.
	_, _ = v.Run(ctx, "systemctl reboot")
	if err := v.waitEnd(ctx); err != nil {
		return err
	}
	return v.Boot(ctx)
}

func (v *VM) waitEnd(ctx context.Context) error {
	select {
	case <-v.ended:
		v.cmd = nil
		return nil
	case <-time.After(5 * time.Minute):
		return errors.New("the machine does not end")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close ends the machine and its log.
func (v *VM) Close() error {
	return errors.Join(v.PowerCut(), v.console.Close())
}

// Run runs a shell command as root and returns what it printed.
func (v *VM) Run(ctx context.Context, command string) (string, error) {
	return v.run(ctx, command, nil)
}

// Put writes a file on the machine.
func (v *VM) Put(ctx context.Context, path string, content io.Reader) error {
	if out, err := v.run(ctx, "cat >'"+path+"'", content); err != nil {
		return fmt.Errorf("put %s: %w: %s", path, err, out)
	}
	return nil
}

func (v *VM) run(ctx context.Context, command string, stdin io.Reader) (string, error) {
	cmd := exec.CommandContext(ctx, "nsenter", "--net=/run/netns/"+v.namespace, "ssh",
		"-i", filepath.Join(v.dir, "key"), "-o", "BatchMode=yes", "-o", "ConnectTimeout=5",
		"-o", "ServerAliveInterval=15", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR",
		"root@"+Address, command)
	cmd.Stdin = stdin
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("on the machine: %s: %w: %s", command, err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}

// Wait repeats a command on the machine until it succeeds.
func (v *VM) Wait(ctx context.Context, command string, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for {
		_, err := v.Run(ctx, command)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case ended := <-v.ended:
			v.ended <- ended
			return fmt.Errorf("qemu ended: %w", ended)
		case <-ctx.Done():
			return fmt.Errorf("within %s: %w", limit, err)
		}
	}
}

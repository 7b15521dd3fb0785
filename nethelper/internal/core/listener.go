package core

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"honeysens.org/dockersensor/shared/helperapi"
)

// Listener is a socket of the host that waits at a port.
type Listener struct {
	// Everywhere is true when it is bound to no address.
	Everywhere bool
	inode      uint64
}

// Listeners returns one listener of each port that has any in the calling
// thread's network namespace; one on all addresses where there is one.
func (Kernel) Listeners() (map[helperapi.Port]Listener, error) {
	found := map[helperapi.Port]Listener{}
	for _, table := range []string{"tcp", "tcp6", "udp", "udp6"} {
		file, err := os.Open(filepath.Join("/proc/thread-self/net", table))
		if errors.Is(err, fs.ErrNotExist) {
			continue // no IPv6
		}
		if err != nil {
			return nil, fmt.Errorf("list sockets: %w", err)
		}
		err = readSockets(file, helperapi.Protocol(strings.TrimSuffix(table, "6")), found)
		_ = file.Close()
		if err != nil {
			return nil, fmt.Errorf("list sockets: %s: %w", table, err)
		}
	}
	return found, nil
}

// States of sockets in /proc/net, as proc_pid_net(5) has them.
const (
	stateListen      = "0A"
	stateUnconnected = "07"
)

// readSockets reads a table of /proc/net. What it cannot read it leaves out.
func readSockets(r io.Reader, protocol helperapi.Protocol, found map[helperapi.Port]Listener) error {
	wanted := stateListen
	if protocol == helperapi.UDP {
		wanted = stateUnconnected
	}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		const local, state, inode = 1, 3, 9
		fields := strings.Fields(lines.Text())
		if len(fields) <= inode || fields[state] != wanted {
			continue
		}
		address, number, _ := strings.Cut(fields[local], ":")
		port, err := strconv.ParseUint(number, 16, 16)
		node, err2 := strconv.ParseUint(fields[inode], 10, 64)
		if err != nil || err2 != nil || port == 0 {
			continue
		}
		key := helperapi.Port{Protocol: protocol, Number: uint16(port)}
		if known, there := found[key]; !there || !known.Everywhere {
			found[key] = Listener{Everywhere: strings.Trim(address, "0") == "", inode: node}
		}
	}
	return lines.Err()
}

// Programs names the programs behind listeners, such as "sshd (pid 812)". A
// listener whose program cannot be found, since it is the kernel's own or has
// just ended, has no name.
func (Kernel) Programs(listeners []Listener) map[Listener]string {
	names := map[Listener]string{}
	wanted := map[string]Listener{}
	for _, l := range listeners {
		wanted["socket:["+strconv.FormatUint(l.inode, 10)+"]"] = l
	}
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return names
	}
	for _, process := range processes {
		if len(names) == len(wanted) {
			break
		}
		nameSockets(process, wanted, names)
	}
	return names
}

// nameSockets looks for sockets among the open files of a process, which may
// end meanwhile.
func nameSockets(process string, wanted map[string]Listener, names map[Listener]string) {
	files, err := os.ReadDir(filepath.Join(process, "fd"))
	if err != nil {
		return
	}
	for _, file := range files {
		target, err := os.Readlink(filepath.Join(process, "fd", file.Name()))
		l, ok := wanted[target]
		if err != nil || !ok || names[l] != "" {
			continue
		}
		if comm, err := os.ReadFile(filepath.Join(process, "comm")); err == nil {
			names[l] = fmt.Sprintf("%s (pid %s)", printable(string(comm)), filepath.Base(process))
		}
	}
}

// printable makes a name harmless that a program has chosen for itself. The
// kernel has cut it to 15 bytes.
func printable(comm string) string {
	return strings.Map(func(r rune) rune {
		if r < '!' || r > '~' {
			return '_'
		}
		return r
	}, strings.TrimSuffix(comm, "\n"))
}

package services

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"honeysens.org/dockersensor/shared/helperapi"
)

// maxSockets bounds what is read of each table of sockets, in bytes: some 3,000
// lines. The kernel lists sockets that listen first.
const maxSockets = 512 << 10

// States of sockets in the kernel's tables (include/net/tcp_states.h). A UDP
// socket that is bound and not connected has stateClose.
const (
	stateEstablished = "01"
	stateSynSent     = "02"
	stateClose       = "07"
	stateCloseWait   = "08"
	stateListen      = "0A"
)

// sockets is what the kernel tells about a network namespace.
type sockets struct {
	// open are the ports at which somebody waits.
	open map[helperapi.Port]bool
	// unaccepted are connections that no program has accepted, by local port
	// and peer.
	unaccepted map[waiting]bool
	// dialling counts connections that the honeypot began and nobody answered.
	dialling int
	// packets is true when somebody takes packets rather than connections. Then
	// nothing is known of who waits where.
	packets bool
}

// waiting is a connection in the queue of a listener.
type waiting struct {
	port uint16
	peer netip.AddrPort
}

// readSockets reads the tables of the network namespace that the process is in.
// They can be read without any right over the process (proc_pid_net(5)).
func readSockets(proc string, pid int) (sockets, error) {
	s := sockets{open: map[helperapi.Port]bool{}, unaccepted: map[waiting]bool{}}
	dir := filepath.Join(proc, strconv.Itoa(pid), "net")
	for _, table := range []struct {
		name string
		add  func(line []string)
	}{
		{"tcp", s.addTCP}, {"tcp6", s.addTCP}, {"udp", s.addUDP}, {"udp6", s.addUDP},
		{"packet", s.addPackets}, {"raw", s.addPackets}, {"raw6", s.addPackets},
	} {
		err := eachLine(filepath.Join(dir, table.name), table.add)
		// A kernel without IPv6 has no tables of it, one without packet sockets
		// none of those; every one has TCP's.
		if err != nil && (table.name == "tcp" || !errors.Is(err, fs.ErrNotExist)) {
			return sockets{}, fmt.Errorf("read sockets of process %d: %w", pid, err)
		}
	}
	return s, nil
}

// eachLine hands on the fields of each line but the heading.
func eachLine(path string, add func([]string)) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	lines := bufio.NewScanner(io.LimitReader(file, maxSockets))
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); len(fields) > 0 && fields[0] != "sl" && fields[0] != "sk" {
			add(fields)
		}
	}
	return lines.Err()
}

// The columns of the tables of TCP and UDP.
const (
	columnLocal = iota + 1
	columnPeer
	columnState
	columnInode = 9
)

func (s *sockets) addTCP(line []string) {
	if len(line) <= columnInode {
		return
	}
	local, errLocal := socketAddress(line[columnLocal])
	peer, errPeer := socketAddress(line[columnPeer])
	if errLocal != nil || errPeer != nil {
		return
	}
	switch line[columnState] {
	case stateListen:
		s.open[helperapi.Port{Protocol: helperapi.TCP, Number: local.Port()}] = true
	case stateSynSent:
		s.dialling++
	case stateEstablished, stateCloseWait:
		// The connection gets its inode when a program accepts it.
		if line[columnInode] == "0" {
			s.unaccepted[waiting{local.Port(), peer}] = true
		}
	}
}

func (s *sockets) addUDP(line []string) {
	if len(line) <= columnState || line[columnState] != stateClose {
		return
	}
	if local, err := socketAddress(line[columnLocal]); err == nil {
		s.open[helperapi.Port{Protocol: helperapi.UDP, Number: local.Port()}] = true
	}
}

func (s *sockets) addPackets([]string) { s.packets = true }

// socketAddress reads an address as the kernel writes it: groups of four bytes in
// the order of the machine, which is little-endian wherever honeypots run, and
// the port as a number.
func socketAddress(text string) (netip.AddrPort, error) {
	host, port, _ := strings.Cut(text, ":")
	number, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("port of %.50q: %w", text, err)
	}
	raw, err := hex.DecodeString(host)
	if err != nil || len(raw)%4 != 0 {
		return netip.AddrPort{}, fmt.Errorf("address of %.50q: want groups of four bytes", text)
	}
	for group := range slices.Chunk(raw, 4) {
		slices.Reverse(group)
	}
	addr, ok := netip.AddrFromSlice(raw)
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("address of %.50q: %d bytes", text, len(raw))
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(number)), nil
}

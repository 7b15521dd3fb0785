package capture

import (
	"encoding/binary"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// snapLength is enough for the headers and the payload that is kept.
const snapLength = 512

// receiveBuffer lets the kernel keep what arrives while we are busy, in bytes.
const receiveBuffer = 4 << 20

// open returns a packet socket that sees IP packets of one interface, without
// their link headers.
func open(ifindex int) (*os.File, error) {
	// With protocol 0 nothing arrives before the filter is in place.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	file := os.NewFile(uintptr(fd), "packet")
	if err := prepare(fd, ifindex); err != nil {
		_ = file.Close()
		return nil, err
	}
	return file, nil
}

func prepare(fd, ifindex int) error {
	// Without CAP_NET_ADMIN the default has to do.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer)
	if err := attachFilter(fd); err != nil {
		return err
	}
	addr := &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL), Ifindex: ifindex}
	if err := unix.Bind(fd, addr); err != nil {
		return fmt.Errorf("bind packet socket: %w", err)
	}
	return nil
}

func networkOrder(v uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], v)
	return binary.NativeEndian.Uint16(b[:])
}

// filter lets through IPv6, and of IPv4 UDP and TCP without ACK and RST, so
// that the payload of other people's connections never reaches this process.
func filter() []bpf.Instruction {
	return []bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtProto},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.ETH_P_IPV6, SkipTrue: 9},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.ETH_P_IP, SkipTrue: 9},
		bpf.LoadAbsolute{Off: 9, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: protoUDP, SkipTrue: 6},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: protoTCP, SkipTrue: 6},
		bpf.LoadAbsolute{Off: 6, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x1fff, SkipTrue: 4},
		bpf.LoadMemShift{Off: 0},
		bpf.LoadIndirect{Off: 13, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: flagACK | flagRST, SkipTrue: 1},
		bpf.RetConstant{Val: snapLength},
		bpf.RetConstant{Val: 0},
	}
}

func attachFilter(fd int) error {
	raw, err := bpf.Assemble(filter())
	if err != nil {
		return fmt.Errorf("assemble filter: %w", err)
	}
	program := make([]unix.SockFilter, 0, len(raw))
	for _, i := range raw {
		program = append(program, unix.SockFilter{Code: i.Op, Jt: i.Jt, Jf: i.Jf, K: i.K})
	}
	prog := &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]} // #nosec G115 -- a dozen instructions
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, prog); err != nil {
		return fmt.Errorf("attach filter: %w", err)
	}
	return nil
}

// receive waits for a packet and returns its size and whom it is for, as in
// packet(7).
func receive(conn syscall.RawConn, buffer []byte) (n int, kind uint8, err error) {
	var inner error
	err = conn.Read(func(fd uintptr) bool {
		var from unix.Sockaddr
		n, from, inner = unix.Recvfrom(int(fd), buffer, 0) // #nosec G115 -- a descriptor
		if link, ok := from.(*unix.SockaddrLinklayer); ok {
			kind = link.Pkttype
		}
		return inner != unix.EAGAIN && inner != unix.EINTR
	})
	if err == nil {
		err = inner
	}
	return n, kind, err
}

package iface

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

const (
	clientPort = 68
	serverPort = 67
	ipHeader   = 20
	udpHeader  = 8
	// maxPacket is the longest one that is read, in bytes.
	maxPacket = 1500
)

// socket sends and receives DHCP at an interface that may have no address yet
// (RFC 2131, 4.1). It needs CAP_NET_RAW and no port of the host.
type socket struct {
	frames *packet.Conn
	// raw is for packets to one server: the kernel finds the way.
	raw int
	// source is the interface's own address, once it has one.
	source netip.Addr
}

func openSocket(iface string, source netip.Addr) (*socket, error) {
	link, err := net.InterfaceByName(iface)
	if err != nil {
		return nil, fmt.Errorf("open DHCP socket at %s: %w", iface, err)
	}
	filter, err := bpf.Assemble(onlyDHCP())
	if err != nil {
		return nil, fmt.Errorf("assemble filter: %w", err)
	}
	frames, err := packet.Listen(link, packet.Datagram, unix.ETH_P_IP, &packet.Config{Filter: filter})
	if err != nil {
		return nil, fmt.Errorf("open DHCP socket at %s: %w", iface, err)
	}
	raw, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err == nil {
		err = errors.Join(unix.BindToDevice(raw, iface), unix.SetNonblock(raw, true))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open raw socket at %s: %w", iface, err), frames.Close())
	}
	return &socket{frames: frames, raw: raw, source: source}, nil
}

// onlyDHCP lets pass what a DHCP server sends to its clients, unfragmented.
func onlyDHCP() []bpf.Instruction {
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: 9, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_UDP, SkipTrue: 6},
		bpf.LoadAbsolute{Off: 6, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x3fff, SkipTrue: 4},
		bpf.LoadMemShift{Off: 0},
		bpf.LoadIndirect{Off: 2, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: clientPort, SkipTrue: 1},
		bpf.RetConstant{Val: maxPacket},
		bpf.RetConstant{Val: 0},
	}
}

// ReadFrom returns the content of the next DHCP packet.
func (s *socket) ReadFrom(into []byte) (int, net.Addr, error) {
	buffer := make([]byte, maxPacket)
	for {
		n, _, err := s.frames.ReadFrom(buffer)
		if err != nil {
			return 0, nil, err
		}
		if content, from, ok := unwrap(buffer[:n]); ok {
			return copy(into, content), net.UDPAddrFromAddrPort(from), nil
		}
	}
}

// unwrap returns the content of an IPv4 UDP packet to the client's port. Its
// checksum says nothing: on a virtual link it may not have been computed yet.
func unwrap(raw []byte) ([]byte, netip.AddrPort, bool) {
	if len(raw) < ipHeader || raw[0]>>4 != 4 || raw[9] != unix.IPPROTO_UDP {
		return nil, netip.AddrPort{}, false
	}
	start, end := int(raw[0]&15)*4, int(binary.BigEndian.Uint16(raw[2:]))
	if start < ipHeader || end > len(raw) || end < start+udpHeader {
		return nil, netip.AddrPort{}, false
	}
	udp := raw[start:end]
	length := int(binary.BigEndian.Uint16(udp[4:]))
	if binary.BigEndian.Uint16(udp[2:]) != clientPort || length < udpHeader || length > len(udp) {
		return nil, netip.AddrPort{}, false
	}
	from := netip.AddrPortFrom(netip.AddrFrom4([4]byte(raw[12:16])), binary.BigEndian.Uint16(udp))
	return udp[udpHeader:length], from, true
}

// WriteTo sends to all servers of the link, or to one.
func (s *socket) WriteTo(content []byte, to net.Addr) (int, error) {
	udp, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, fmt.Errorf("send to %v: not a UDP address", to)
	}
	dest, ok := netip.AddrFromSlice(udp.IP)
	if dest = dest.Unmap(); !ok || !dest.Is4() {
		return 0, fmt.Errorf("send to %v: not an IPv4 address", to)
	}
	raw := wrap(content, s.source, dest)
	if dest == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		everybody := net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
		if _, err := s.frames.WriteTo(raw, &packet.Addr{HardwareAddr: everybody}); err != nil {
			return 0, err
		}
		return len(content), nil
	}
	if err := unix.Sendto(s.raw, raw, 0, &unix.SockaddrInet4{Addr: dest.As4()}); err != nil {
		return 0, fmt.Errorf("send to %v: %w", dest, err)
	}
	return len(content), nil
}

// wrap makes an IPv4 UDP packet from a client to a server.
func wrap(content []byte, source, dest netip.Addr) []byte {
	if !source.IsValid() {
		source = netip.IPv4Unspecified()
	}
	from, to := source.As4(), dest.As4()
	raw := make([]byte, ipHeader+udpHeader, ipHeader+udpHeader+len(content))
	raw[0], raw[8], raw[9] = 4<<4|ipHeader/4, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(raw[2:], uint16(ipHeader+udpHeader+len(content))) // #nosec G115 -- at most an MTU
	copy(raw[12:], from[:])
	copy(raw[16:], to[:])
	binary.BigEndian.PutUint16(raw[10:], checksum(raw[:ipHeader]))
	udp := raw[ipHeader:]
	binary.BigEndian.PutUint16(udp, clientPort)
	binary.BigEndian.PutUint16(udp[2:], serverPort)
	binary.BigEndian.PutUint16(udp[4:], uint16(udpHeader+len(content))) // #nosec G115 -- at most an MTU
	raw = append(raw, content...)
	udp = raw[ipHeader:]
	pseudo := append(append(append([]byte{}, from[:]...), to[:]...), 0, unix.IPPROTO_UDP, udp[4], udp[5])
	binary.BigEndian.PutUint16(udp[6:], checksum(append(pseudo, udp...)))
	return raw
}

// checksum is that of RFC 1071.
func checksum(data []byte) uint16 {
	var sum uint32
	for i, b := range data {
		sum += uint32(b) << (8 * (1 - i%2))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum) // #nosec G115 -- folded into 16 bits above
}

// Close ends a ReadFrom that waits.
func (s *socket) Close() error {
	return errors.Join(s.frames.Close(), unix.Close(s.raw))
}

// LocalAddr is part of net.PacketConn.
func (s *socket) LocalAddr() net.Addr { return s.frames.LocalAddr() }

// SetDeadline is part of net.PacketConn.
func (s *socket) SetDeadline(t time.Time) error { return s.frames.SetDeadline(t) }

// SetReadDeadline is part of net.PacketConn.
func (s *socket) SetReadDeadline(t time.Time) error { return s.frames.SetReadDeadline(t) }

// SetWriteDeadline is part of net.PacketConn.
func (s *socket) SetWriteDeadline(t time.Time) error { return s.frames.SetWriteDeadline(t) }

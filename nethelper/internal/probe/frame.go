package probe

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"honeysens.org/dockersensor/shared/helperapi"
)

const (
	ipHeader  = 20
	ip6Header = 40
	tcpHeader = 20
	udpHeader = 8
	// maxRead is as much of a packet as is read, in bytes: headers.
	maxRead = 256
)

// Flags of TCP (RFC 9293, 3.1).
const (
	fin = 1 << iota
	syn
	rst
	psh
	ack
)

// flow is who speaks with whom.
type flow struct {
	source, target netip.Addr
	from           uint16
	port           helperapi.Port
}

func (f flow) protocol() byte {
	if f.port.Protocol == helperapi.UDP {
		return unix.IPPROTO_UDP
	}
	return unix.IPPROTO_TCP
}

func (f flow) etherType() uint16 {
	if f.source.Is4() {
		return unix.ETH_P_IP
	}
	return unix.ETH_P_IPV6
}

// addresses is where a header has its addresses, source and destination.
func (f flow) addresses() int {
	if f.source.Is4() {
		return 12
	}
	return 8
}

// frame is an Ethernet frame with a segment of the flow (RFC 894, 2464).
func (f flow) frame(to net.HardwareAddr, segment []byte) []byte {
	frame := append([]byte{}, to...)
	frame = append(frame, 2, 0, 0, 0, 0, 1) // of a card that nobody has
	frame = binary.BigEndian.AppendUint16(frame, f.etherType())
	if f.source.Is4() {
		frame = append(frame, f.header4(len(segment))...)
	} else {
		frame = append(frame, f.header6(len(segment))...)
	}
	return append(frame, segment...)
}

// header4 is that of RFC 791.
func (f flow) header4(length int) []byte {
	header := make([]byte, ipHeader)
	header[0], header[8], header[9] = 4<<4|ipHeader/4, 64, f.protocol()
	binary.BigEndian.PutUint16(header[2:], uint16(ipHeader+length)) // #nosec G115 -- some 60 bytes
	copy(header[12:], f.source.AsSlice())
	copy(header[16:], f.target.AsSlice())
	binary.BigEndian.PutUint16(header[10:], checksum(header))
	return header
}

// header6 is that of RFC 8200.
func (f flow) header6(length int) []byte {
	header := make([]byte, ip6Header)
	header[0], header[6], header[7] = 6<<4, f.protocol(), 64
	binary.BigEndian.PutUint16(header[4:], uint16(length)) // #nosec G115 -- some 40 bytes
	copy(header[8:], f.source.AsSlice())
	copy(header[24:], f.target.AsSlice())
	return header
}

// tcp is a segment of TCP with the largest window that needs no scaling.
func (f flow) tcp(flags byte, seq, acked uint32, content string) []byte {
	segment := make([]byte, tcpHeader, tcpHeader+len(content))
	binary.BigEndian.PutUint16(segment, f.from)
	binary.BigEndian.PutUint16(segment[2:], f.port.Number)
	binary.BigEndian.PutUint32(segment[4:], seq)
	binary.BigEndian.PutUint32(segment[8:], acked)
	segment[12], segment[13] = tcpHeader/4<<4, flags
	binary.BigEndian.PutUint16(segment[14:], 0xffff)
	segment = append(segment, content...)
	binary.BigEndian.PutUint16(segment[16:], f.sum(segment))
	return segment
}

func (f flow) udp(content string) []byte {
	segment := make([]byte, udpHeader, udpHeader+len(content))
	binary.BigEndian.PutUint16(segment, f.from)
	binary.BigEndian.PutUint16(segment[2:], f.port.Number)
	binary.BigEndian.PutUint16(segment[4:], uint16(udpHeader+len(content))) // #nosec G115 -- some 30 bytes
	segment = append(segment, content...)
	binary.BigEndian.PutUint16(segment[6:], f.sum(segment))
	return segment
}

// sum is the checksum of a segment with its pseudo header (RFC 9293, 3.1; RFC 8200,
// 8.1): for a sum it does not matter how many zeros there are, and where.
func (f flow) sum(segment []byte) uint16 {
	pseudo := append(append(append([]byte{}, f.source.AsSlice()...), f.target.AsSlice()...), 0, f.protocol())
	pseudo = binary.BigEndian.AppendUint16(pseudo, uint16(len(segment))) // #nosec G115 -- some 40 bytes
	return checksum(append(pseudo, segment...))
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

// segment is what matters of an answer by TCP.
type segment struct {
	flags      byte
	seq, acked uint32
	// length is that of the content, whatever of it was read.
	length uint32
}

// parse reads an answer of the flow. A datagram is a segment with content alone.
func (f flow) parse(packet []byte) (segment, bool) {
	start, total, ok := f.parseHeader(packet)
	header := udpHeader
	if f.protocol() == unix.IPPROTO_TCP {
		header = tcpHeader
	}
	if !ok || len(packet) < start+header {
		return segment{}, false
	}
	payload := packet[start:]
	if binary.BigEndian.Uint16(payload) != f.port.Number || binary.BigEndian.Uint16(payload[2:]) != f.from {
		return segment{}, false
	}
	if f.protocol() == unix.IPPROTO_TCP {
		header = int(payload[12]>>4) * 4
	}
	length := total - start - header
	if header < udpHeader || length < 0 {
		return segment{}, false
	}
	s := segment{length: uint32(length)} // #nosec G115 -- below 65536
	if f.protocol() == unix.IPPROTO_TCP {
		s.seq, s.acked, s.flags = binary.BigEndian.Uint32(payload[4:]), binary.BigEndian.Uint32(payload[8:]), payload[13]
	}
	return s, true
}

// parseHeader returns where the segment begins and where the packet ends.
func (f flow) parseHeader(packet []byte) (start, total int, ok bool) {
	length, at, protocol := ipHeader, 9, byte(4)
	if f.source.Is6() {
		length, at, protocol = ip6Header, 6, 6
	}
	if len(packet) < length || packet[0]>>4 != protocol || packet[at] != f.protocol() {
		return 0, 0, false
	}
	start, total = int(packet[0]&15)*4, int(binary.BigEndian.Uint16(packet[2:]))
	if f.source.Is6() {
		start, total = ip6Header, ip6Header+int(binary.BigEndian.Uint16(packet[4:]))
	}
	addresses := append(f.target.AsSlice(), f.source.AsSlice()...)
	return start, total, start >= length && bytes.HasPrefix(packet[f.addresses():], addresses)
}

// filter lets pass what goes to the flow's source.
func (f flow) filter() []bpf.Instruction {
	next, at := uint32(9), uint32(f.addresses()+f.source.BitLen()/8) // #nosec G115 -- below 40
	if f.source.Is6() {
		next = 6
	}
	matches := []bpf.Instruction{bpf.LoadExtension{Num: bpf.ExtProto}}
	equals := func(value uint32) {
		matches = append(matches, bpf.JumpIf{Cond: bpf.JumpEqual, Val: value, SkipTrue: 1}, bpf.RetConstant{Val: 0})
	}
	equals(uint32(f.etherType()))
	matches = append(matches, bpf.LoadAbsolute{Off: next, Size: 1})
	equals(uint32(f.protocol()))
	for source := f.source.AsSlice(); len(source) > 0; source, at = source[4:], at+4 {
		matches = append(matches, bpf.LoadAbsolute{Off: at, Size: 4})
		equals(binary.BigEndian.Uint32(source))
	}
	return append(matches, bpf.RetConstant{Val: maxRead})
}

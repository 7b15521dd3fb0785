package probe

import (
	"encoding/binary"
	"net"
	"net/netip"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"honeysens.org/dockersensor/shared/helperapi"
)

const (
	ipHeader  = 20
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

// frame is an Ethernet frame with a segment of the flow (RFC 791, 894).
func (f flow) frame(to net.HardwareAddr, segment []byte) []byte {
	source, target := f.source.As4(), f.target.As4()
	frame := make([]byte, 14+ipHeader, 14+ipHeader+len(segment))
	copy(frame, to)
	copy(frame[6:], []byte{2, 0, 0, 0, 0, 1}) // of a card that nobody has
	binary.BigEndian.PutUint16(frame[12:], unix.ETH_P_IP)
	header := frame[14:]
	header[0], header[8], header[9] = 4<<4|ipHeader/4, 64, f.protocol()
	binary.BigEndian.PutUint16(header[2:], uint16(ipHeader+len(segment))) // #nosec G115 -- some 60 bytes
	copy(header[12:], source[:])
	copy(header[16:], target[:])
	binary.BigEndian.PutUint16(header[10:], checksum(header))
	return append(frame, segment...)
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

// sum is the checksum of a segment with its pseudo header (RFC 9293, 3.1).
func (f flow) sum(segment []byte) uint16 {
	source, target := f.source.As4(), f.target.As4()
	pseudo := append(append(append([]byte{}, source[:]...), target[:]...), 0, f.protocol())
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
	if len(packet) < ipHeader || packet[0]>>4 != 4 || packet[9] != f.protocol() {
		return segment{}, false
	}
	start, total := int(packet[0]&15)*4, int(binary.BigEndian.Uint16(packet[2:]))
	header := udpHeader
	if f.protocol() == unix.IPPROTO_TCP {
		header = tcpHeader
	}
	if start < ipHeader || len(packet) < start+header || netip.AddrFrom4([4]byte(packet[12:16])) != f.target ||
		netip.AddrFrom4([4]byte(packet[16:20])) != f.source {
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

// filter lets pass what goes to the flow's source.
func (f flow) filter() []bpf.Instruction {
	source := f.source.As4()
	return []bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtProto},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.ETH_P_IP, SkipTrue: 5},
		bpf.LoadAbsolute{Off: 9, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(f.protocol()), SkipTrue: 3},
		bpf.LoadAbsolute{Off: 16, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: binary.BigEndian.Uint32(source[:]), SkipTrue: 1},
		bpf.RetConstant{Val: maxRead},
		bpf.RetConstant{Val: 0},
	}
}

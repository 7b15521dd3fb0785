package capture

import (
	"encoding/binary"
	"net/netip"

	"honeysens.org/dockersensor/packaging/services/recon/internal/tracker"
	"honeysens.org/dockersensor/shared/event"
)

// Numbers of protocols (IANA) and of TCP flags (RFC 9293).
const (
	protoTCP = 6
	protoUDP = 17

	flagRST = 0x04
	flagACK = 0x10
)

// maxExtensions bounds the extension headers of IPv6 that are followed.
const maxExtensions = 6

// packet is what parse finds in the headers.
type packet struct {
	source, dest netip.Addr
	proto        int
	sport, dport uint16
	flags        uint8
	payload      []byte
}

// parse reads an IP packet, which may be cut short. It tells false for
// whatever is neither TCP nor UDP, or broken.
func parse(data []byte) (packet, bool) {
	if len(data) == 0 {
		return packet{}, false
	}
	switch data[0] >> 4 {
	case 4:
		return parseV4(data)
	case 6:
		return parseV6(data)
	}
	return packet{}, false
}

func parseV4(data []byte) (packet, bool) {
	if len(data) < 20 {
		return packet{}, false
	}
	header := int(data[0]&0x0f) * 4
	total := int(binary.BigEndian.Uint16(data[2:]))
	fragmentOffset := binary.BigEndian.Uint16(data[6:]) & 0x1fff
	if header < 20 || len(data) < header || total < header || fragmentOffset != 0 {
		return packet{}, false
	}
	p := packet{
		source: netip.AddrFrom4([4]byte(data[12:16])),
		dest:   netip.AddrFrom4([4]byte(data[16:20])),
		proto:  int(data[9]),
	}
	// Short frames are padded: the length of the packet counts.
	return p.transport(data[header:min(total, len(data))])
}

func parseV6(data []byte) (packet, bool) {
	if len(data) < 40 {
		return packet{}, false
	}
	p := packet{
		source: netip.AddrFrom16([16]byte(data[8:24])),
		dest:   netip.AddrFrom16([16]byte(data[24:40])),
	}
	total := 40 + int(binary.BigEndian.Uint16(data[4:]))
	next, rest := int(data[6]), data[40:min(total, len(data))]
	for range maxExtensions {
		if next == protoTCP || next == protoUDP {
			p.proto = next
			return p.transport(rest)
		}
		var ok bool
		if next, rest, ok = skipExtension(next, rest); !ok {
			return packet{}, false
		}
	}
	return packet{}, false
}

// skipExtension skips an extension header (RFC 8200, section 4).
func skipExtension(kind int, data []byte) (next int, rest []byte, ok bool) {
	if len(data) < 8 {
		return 0, nil, false
	}
	size := 8
	switch kind {
	case 0, 43, 60: // hop-by-hop, routing, destination options
		size += int(data[1]) * 8
	case 44: // fragment
		if binary.BigEndian.Uint16(data[2:])>>3 != 0 {
			return 0, nil, false
		}
	default:
		return 0, nil, false
	}
	if len(data) < size {
		return 0, nil, false
	}
	return int(data[0]), data[size:], true
}

func (p packet) transport(data []byte) (packet, bool) {
	need := 8
	if p.proto == protoTCP {
		need = 20
	}
	if (p.proto != protoTCP && p.proto != protoUDP) || len(data) < need {
		return packet{}, false
	}
	p.sport, p.dport = binary.BigEndian.Uint16(data), binary.BigEndian.Uint16(data[2:])
	if p.proto == protoTCP {
		p.flags = data[13]
		return p, true
	}
	p.payload = data[8:]
	return p, true
}

// probe tells whether a packet is one, and converts it. The time is the
// caller's to set.
func (p packet) probe() (tracker.Probe, bool) {
	out := tracker.Probe{Source: p.source, SourcePort: p.sport, DstPort: p.dport}
	switch {
	case p.proto == protoUDP && dhcp(p.dport):
		return tracker.Probe{}, false
	case p.proto == protoUDP:
		out.Protocol = event.ProtocolUDP
		out.Payload = append([]byte(nil), p.payload[:min(len(p.payload), tracker.MaxPayload)]...)
	case p.flags&(flagACK|flagRST) == 0:
		out.Protocol, out.Flags = event.ProtocolTCP, p.flags
	default:
		return tracker.Probe{}, false
	}
	return out, true
}

// dhcp tells whether a port is that of a DHCP client or server; every network
// is full of that.
func dhcp(port uint16) bool {
	return port == 67 || port == 68 || port == 546 || port == 547
}

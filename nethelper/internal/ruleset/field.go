package ruleset

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// field is something that can be read from a packet.
type field struct {
	text  string
	bytes uint32
	needs protocols
	load  func(reg uint32) expr.Any
}

// load reads fields into registers, one after the other, each at the start of
// a word.
func load(fields ...field) part {
	var (
		p     part
		names []string
		word  uint32
	)
	for _, f := range fields {
		p.exprs = append(p.exprs, f.load(register(word)))
		p.needs = p.needs.and(f.needs)
		names = append(names, f.text)
		word += (f.bytes + 3) / 4
	}
	p.text = strings.Join(names, " . ")
	return p
}

func metaField(text string, key expr.MetaKey, bytes uint32) field {
	return field{text: text, bytes: bytes, load: func(reg uint32) expr.Any { return meta(key, reg) }}
}

func payload(text string, base expr.PayloadBase, offset, length uint32, needs protocols) field {
	return field{text: text, bytes: length, needs: needs, load: func(reg uint32) expr.Any {
		return &expr.Payload{DestRegister: reg, Base: base, Offset: offset, Len: length}
	}}
}

// iifkind and oifkind are how the interface was made, such as "bridge"; "" for
// hardware.
func iifkind() field { return metaField("meta iifkind", metaKeyIIFKIND, unix.IFNAMSIZ) }
func oifkind() field { return metaField("meta oifkind", metaKeyOIFKIND, unix.IFNAMSIZ) }

// Not in the library: NFT_META_IIFKIND and NFT_META_OIFKIND of nf_tables.h.
const (
	metaKeyIIFKIND expr.MetaKey = 26
	metaKeyOIFKIND expr.MetaKey = 27
)

func iifname() field  { return metaField("iifname", expr.MetaKeyIIFNAME, unix.IFNAMSIZ) }
func oifname() field  { return metaField("oifname", expr.MetaKeyOIFNAME, unix.IFNAMSIZ) }
func protocol() field { return metaField("meta l4proto", expr.MetaKeyL4PROTO, 1) }

// destinationPort is the one of TCP and of UDP, which have it in the same
// place. It is read only together with the protocol.
func destinationPort() field {
	return payload("th dport", expr.PayloadBaseTransportHeader, 2, 2, protocols{})
}

func udpSource() field {
	return payload("udp sport", expr.PayloadBaseTransportHeader, 0, 2, protocols{transport: unix.IPPROTO_UDP})
}

func udpDestination() field {
	return payload("udp dport", expr.PayloadBaseTransportHeader, 2, 2, protocols{transport: unix.IPPROTO_UDP})
}

func tcpDestination() field {
	return payload("tcp dport", expr.PayloadBaseTransportHeader, 2, 2, protocols{transport: unix.IPPROTO_TCP})
}

func tcpFlags() field {
	return payload("tcp flags", expr.PayloadBaseTransportHeader, 13, 1, protocols{transport: unix.IPPROTO_TCP})
}

func icmpv6Type() field {
	needs := protocols{network: unix.NFPROTO_IPV6, transport: unix.IPPROTO_ICMPV6}
	return payload("icmpv6 type", expr.PayloadBaseTransportHeader, 0, 1, needs)
}

// source and destination are the addresses of a family: RFC 791 and RFC 8200.
func source(v6 bool) field {
	if v6 {
		return payload("ip6 saddr", expr.PayloadBaseNetworkHeader, 8, 16, protocols{network: unix.NFPROTO_IPV6})
	}
	return payload("ip saddr", expr.PayloadBaseNetworkHeader, 12, 4, protocols{network: unix.NFPROTO_IPV4})
}

func destination(v6 bool) field {
	if v6 {
		return payload("ip6 daddr", expr.PayloadBaseNetworkHeader, 24, 16, protocols{network: unix.NFPROTO_IPV6})
	}
	return payload("ip daddr", expr.PayloadBaseNetworkHeader, 16, 4, protocols{network: unix.NFPROTO_IPV4})
}

// equals matches packets whose field has that value, differs the others.
func equals(f field, v Value) part  { return test(f, "", expr.CmpOpEq, v) }
func differs(f field, v Value) part { return test(f, "!= ", expr.CmpOpNeq, v) }

func test(f field, operator string, op expr.CmpOp, v Value) part {
	p := load(f)
	p.text += " " + operator + v.Text
	p.exprs = append(p.exprs, compare(op, v.Data))
	return p
}

// within matches packets whose address is in the prefix.
func within(f field, prefix netip.Prefix) part {
	p := load(f)
	p.text += " " + prefix.Masked().String()
	p.exprs = append(p.exprs, mask(f.bytes, prefixMask(prefix)), compare(expr.CmpOpEq, prefix.Masked().Addr().AsSlice()))
	return p
}

func prefixMask(prefix netip.Prefix) []byte {
	m := make([]byte, prefix.Addr().BitLen()/8)
	for i := range prefix.Bits() {
		m[i/8] |= 0x80 >> (i % 8)
	}
	return m
}

func mask(bytes uint32, m []byte) expr.Any {
	return &expr.Bitwise{SourceRegister: firstRegister, DestRegister: firstRegister, Len: bytes, Mask: m, Xor: make([]byte, bytes)}
}

// Flags of TCP: RFC 9293, 3.1.
const fin, syn, rst, ack = 0x01, 0x02, 0x04, 0x10

// notOpening matches TCP packets that do not open a connection: anything but a
// SYN alone, as far as these four flags go.
func notOpening() part {
	return flags("tcp flags & (fin | syn | rst | ack) != syn", fin|syn|rst|ack, expr.CmpOpNeq, syn)
}

// noneOfSynRstAck and synFin match packets that no connection has.
func noneOfSynRstAck() part {
	return flags("tcp flags & (syn | rst | ack) == 0x0", syn|rst|ack, expr.CmpOpEq, 0)
}

func synFin() part {
	return flags("tcp flags & (fin | syn | rst | ack) == fin | syn", fin|syn|rst|ack, expr.CmpOpEq, fin|syn)
}

// onlyAck matches packets within a connection.
func onlyAck() part {
	return flags("tcp flags & (fin | syn | rst | ack) == ack", fin|syn|rst|ack, expr.CmpOpEq, ack)
}

func flags(text string, of byte, op expr.CmpOp, value byte) part {
	p := load(tcpFlags())
	p.text = text
	p.exprs = append(p.exprs, mask(1, []byte{of}), compare(op, []byte{value}))
	return p
}

// toHost matches packets for an address of the host, whichever interface it is
// on.
func toHost() part { return addressType("daddr", expr.CmpOpEq, "local", unix.RTN_LOCAL) }

// toType matches packets for an address of that type.
func toType(name string, kind uint32) part { return addressType("daddr", expr.CmpOpEq, name, kind) }

// fromHost matches packets from an address of the host.
func fromHost() part { return addressType("saddr", expr.CmpOpEq, "local", unix.RTN_LOCAL) }

// toMany matches packets for multicast and broadcast addresses.
func toMany() part { return addressType("daddr", expr.CmpOpNeq, "!= unicast", unix.RTN_UNICAST) }

func addressType(which string, op expr.CmpOp, text string, kind uint32) part {
	fib := &expr.Fib{Register: firstRegister, ResultADDRTYPE: true, FlagSADDR: which == "saddr", FlagDADDR: which == "daddr"}
	return part{
		text:  "fib " + which + " type " + text,
		exprs: []expr.Any{fib, compare(op, binary.NativeEndian.AppendUint32(nil, kind))},
	}
}

// anySocket matches packets that a socket of the host waits for, be it
// listening, connected or in TIME_WAIT. The attribute is 0 or 1 when there is
// one; without a socket the expression ends the rule.
func anySocket() part {
	return socket("transparent", expr.SocketKeyTransparent, "<= ", expr.CmpOpLte, 1)
}

// boundSocket matches packets that a socket waits for which is bound to an
// address, connected ones included. A socket in TIME_WAIT never matches: the
// kernel does not tell its address here.
func boundSocket() part { return socket("wildcard", expr.SocketKeyWildcard, "", expr.CmpOpEq, 0) }

// wildcardSocket matches packets that a socket on the wildcard address waits for.
func wildcardSocket() part { return socket("wildcard", expr.SocketKeyWildcard, "", expr.CmpOpEq, 1) }

func socket(name string, key expr.SocketKey, operator string, op expr.CmpOp, than byte) part {
	return part{
		text:  "socket " + name + " " + operator + strconv.Itoa(int(than)),
		exprs: []expr.Any{&expr.Socket{Key: key, Register: firstRegister}, compare(op, []byte{than})},
	}
}

// originalPort is the destination port before its translation.
func originalPort() field {
	return field{text: "ct original proto-dst", bytes: 2, load: func(reg uint32) expr.Any {
		return &expr.Ct{Register: reg, Key: expr.CtKeyPROTODST}
	}}
}

// opens matches the first packet of a connection.
func opens() part { return tracked("state", "new", expr.CtKeySTATE, expr.CtStateBitNEW) }

// translated matches packets of connections whose destination was translated.
func translated() part { return tracked("status", "dnat", expr.CtKeySTATUS, 1<<5) }

// followsUp matches packets of connections that both sides have spoken in, and
// ICMP errors about connections.
func followsUp() part {
	return tracked("state", "established,related", expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED)
}

func established() part {
	return tracked("state", "established", expr.CtKeySTATE, expr.CtStateBitESTABLISHED)
}

func invalid() part { return tracked("state", "invalid", expr.CtKeySTATE, expr.CtStateBitINVALID) }

func tracked(name, value string, key expr.CtKey, bits uint32) part {
	return part{text: "ct " + name + " " + value, exprs: []expr.Any{
		&expr.Ct{Register: firstRegister, Key: key},
		mask(4, binary.NativeEndian.AppendUint32(nil, bits)),
		compare(expr.CmpOpNeq, make([]byte, 4)),
	}}
}

// direction matches packets from the one who began the connection, or answers.
func direction(reply bool) part {
	text, value := "original", byte(0)
	if reply {
		text, value = "reply", 1
	}
	return part{text: "ct direction " + text, exprs: []expr.Any{
		&expr.Ct{Register: firstRegister, Key: expr.CtKeyDIRECTION},
		compare(expr.CmpOpEq, []byte{value}),
	}}
}

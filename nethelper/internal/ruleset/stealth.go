package ruleset

import (
	"strconv"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// What is done so that a redirected port looks like one of the host:
//
//   - Answers leave with the distance that the host gives its own.
//   - A packet that may go no further than the host still reaches the service,
//     as it would reach a program: otherwise the host would show itself as a
//     router one hop before the port.
//   - A port that answers SYN does not answer packets that no connection has,
//     because a listening program does not either.
//   - A packet that does not fit a connection to an assigned port gets no reset
//     from the host, which knows nothing of that connection.

// ownDistance gives answers of services the TTL of the host's own.
func (b *builder) ownDistance() []Rule {
	answers := []part{
		equals(oifname(), interfaceName(b.Iface)), equals(iifname(), interfaceName(b.Bridge)), translated(), direction(true),
	}
	return []Rule{
		rule("answers come from the host itself, as far as anybody can tell", append(answers[:4:4], setTTL(b.TTL))...),
		rule("answers come from the host itself, as far as anybody can tell", append(answers[:4:4], setHopLimit(b.HopLimit))...),
	}
}

// lastHop makes room for the one hop between the host and its services.
func (b *builder) lastHop() []Rule {
	from := equals(iifname(), interfaceName(b.Iface))
	return []Rule{
		rule("a program would get it", equals(ttl(), hops(1)), from, translated(), in(b.services4, destination(false)), setTTL(2)),
		rule("a program would get it", equals(hopLimit(), hops(1)), from, translated(), in(b.services6, destination(true)), setHopLimit(2)),
	}
}

// probes are TCP packets that belong to no connection and that the host would
// answer with a reset, other than a program.
func (b *builder) probes() []Rule {
	from := in(b.ifaces, iifname())
	return []Rule{
		rule("no packet of a connection: FIN, nothing, or a Christmas tree", from, noneOfSynRstAck(), jump("silence")),
		rule("no packet of a connection", from, synFin(), jump("silence")),
		rule("does not fit the connection of a service", from, onlyAck(), invalid(), in(b.assigned, protocol(), destinationPort()), jump("silence")),
	}
}

// silenceChain drops where the answer would be that of a port without a
// program.
func (b *builder) silenceChain() Chain {
	return Chain{Name: "silence", Rules: []Rule{
		rule("never redirected", in(b.protected, protocol(), destinationPort()), accept()),
		rule("the host uses it", anySocket(), accept()),
		rule("a service has it", in(b.assigned, protocol(), destinationPort()), drop()),
		rule("the catch-all has it", in(b.caught, protocol()), drop()),
	}}
}

func ttl() field {
	return payload("ip ttl", expr.PayloadBaseNetworkHeader, 8, 1, protocols{network: unix.NFPROTO_IPV4})
}

func hopLimit() field {
	return payload("ip6 hoplimit", expr.PayloadBaseNetworkHeader, 7, 1, protocols{network: unix.NFPROTO_IPV6})
}

func hops(n byte) Value { return Value{Text: strconv.Itoa(int(n)), Data: []byte{n}} }

// setTTL writes two bytes, TTL and protocol: the checksum is one over words.
func setTTL(n byte) part {
	const offset, checksumOffset = 8, 10
	return part{
		text: "ip ttl set " + strconv.Itoa(int(n)),
		exprs: []expr.Any{
			&expr.Payload{DestRegister: firstRegister, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 2},
			&expr.Bitwise{SourceRegister: firstRegister, DestRegister: firstRegister, Len: 2, Mask: []byte{0, 0xff}, Xor: []byte{n, 0}},
			&expr.Payload{
				OperationType: expr.PayloadWrite, SourceRegister: firstRegister, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 2,
				CsumType: expr.CsumTypeInet, CsumOffset: checksumOffset,
			},
		},
		needs: protocols{network: unix.NFPROTO_IPV4},
	}
}

// setHopLimit: a header of IPv6 has no checksum.
func setHopLimit(n byte) part {
	return part{
		text: "ip6 hoplimit set " + strconv.Itoa(int(n)),
		exprs: []expr.Any{
			&expr.Immediate{Register: firstRegister, Data: []byte{n}},
			&expr.Payload{OperationType: expr.PayloadWrite, SourceRegister: firstRegister, Base: expr.PayloadBaseNetworkHeader, Offset: 7, Len: 1},
		},
		needs: protocols{network: unix.NFPROTO_IPV6},
	}
}

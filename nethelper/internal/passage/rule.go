package passage

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"

	"honeysens.org/dockersensor/shared/helperapi"
)

// stateDNAT is XT_CONNTRACK_STATE_DNAT of the kernel.
const stateDNAT = 1 << 7

// iptablesForward is one rule for both directions: the side that answers a
// redirected connection is a service. With an open egress another one accepts
// what services began.
func iptablesForward(chain, name string, network netip.Prefix, egress helperapi.Egress) []insertion {
	ip, mask := network.Masked().Addr().AsSlice(), net.CIDRMask(network.Bits(), network.Addr().BitLen())
	replies := xt.ConntrackMtinfo3{ConntrackMtinfo2: xt.ConntrackMtinfo2{StateMask: stateDNAT}}
	replies.ReplSrcAddr, replies.ReplSrcMask = ip, mask
	replies.MatchFlags = uint16(xt.ConntrackState | xt.ConntrackReplSrc)
	rules := []insertion{iptablesRule(chain, name,
		fmt.Sprintf("-m conntrack --ctstate DNAT --ctreplsrc %s", network.Masked()), conntrack(replies))}
	if egress != helperapi.EgressDeny {
		began := xt.ConntrackMtinfo3{}
		began.OrigSrcAddr, began.OrigSrcMask = ip, mask
		began.MatchFlags = uint16(xt.ConntrackOrigSrc)
		rules = append(rules, iptablesRule(chain, name, fmt.Sprintf("-m conntrack --ctorigsrc %s", network.Masked()), conntrack(began)))
	}
	return rules
}

func conntrack(info xt.ConntrackMtinfo3) expr.Any {
	return &expr.Match{Name: "conntrack", Rev: 3, Info: &info}
}

// iptablesInput lets services reach the collector, and resolve the address of
// the gateway.
func iptablesInput(chain, name, bridge string, gateway netip.Addr, port uint16) []insertion {
	if !gateway.IsValid() {
		return nil
	}
	offset, length := uint32(16), uint32(4)
	if gateway.Is6() {
		offset, length = 24, 16
	}
	from := interfaceIs(expr.MetaKeyIIFNAME, bridge)
	toGateway := append(from, transportIs(unix.IPPROTO_TCP)...)
	toGateway = append(toGateway,
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length},
		equal(gateway.AsSlice()),
		&expr.Match{Name: "tcp", Info: &xt.Tcp{SrcPorts: [2]uint16{0, 65535}, DstPorts: [2]uint16{port, port}}})
	rules := []insertion{iptablesRule(chain, name, fmt.Sprintf("-i %s -d %s -p tcp --dport %d", bridge, gateway, port), toGateway...)}
	if gateway.Is6() {
		discovery := append(interfaceIs(expr.MetaKeyIIFNAME, bridge), transportIs(unix.IPPROTO_ICMPV6)...)
		rules = append(rules, iptablesRule(chain, name, fmt.Sprintf("-i %s -p ipv6-icmp", bridge), discovery...))
	}
	return rules
}

func iptablesRule(chain, name, text string, match ...expr.Any) insertion {
	comment := xt.Comment(name)
	return insertion{
		chain: chain,
		text:  text + " -m comment --comment " + name + " -j ACCEPT",
		exprs: append(match, &expr.Match{Name: "comment", Info: &comment}, &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictAccept}),
	}
}

// nativeForward are the rules for a table that nft wrote.
func nativeForward(chain, name string, cfg Config) []insertion {
	translated, words := []expr.Any{
		&expr.Ct{Register: 1, Key: expr.CtKeySTATUS},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binary.NativeEndian.AppendUint32(nil, 1<<5), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}, " ct status dnat"
	if cfg.Egress != helperapi.EgressDeny {
		translated, words = nil, ""
	}
	return []insertion{
		nativeRule(chain, name, fmt.Sprintf("iifname %q%s", cfg.Bridge, words), append(interfaceIs(expr.MetaKeyIIFNAME, cfg.Bridge), translated...)...),
		nativeRule(chain, name, fmt.Sprintf("oifname %q%s", cfg.Bridge, words), append(interfaceIs(expr.MetaKeyOIFNAME, cfg.Bridge), translated...)...),
	}
}

// nativeInput opens the collector's port and neighbour discovery for the bridge.
func nativeInput(chain, name string, cfg Config) []insertion {
	toCollector := append(interfaceIs(expr.MetaKeyIIFNAME, cfg.Bridge), transportIs(unix.IPPROTO_TCP)...)
	toCollector = append(toCollector,
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		equal(binary.BigEndian.AppendUint16(nil, cfg.CollectorPort)))
	rules := []insertion{nativeRule(chain, name, fmt.Sprintf("iifname %q tcp dport %d", cfg.Bridge, cfg.CollectorPort), toCollector...)}
	if cfg.V6.IsValid() {
		discovery := append(interfaceIs(expr.MetaKeyIIFNAME, cfg.Bridge), transportIs(unix.IPPROTO_ICMPV6)...)
		rules = append(rules, nativeRule(chain, name, fmt.Sprintf("iifname %q meta l4proto ipv6-icmp", cfg.Bridge), discovery...))
	}
	return rules
}

func nativeRule(chain, name, text string, match ...expr.Any) insertion {
	return insertion{
		chain:    chain,
		text:     text + " accept comment " + name,
		exprs:    append(match, &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictAccept}),
		userData: userdata.AppendString(nil, userdata.TypeComment, name),
	}
}

// interfaceIs compares the name with its end, as iptables does.
func interfaceIs(key expr.MetaKey, name string) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, equal(append([]byte(name), 0))}
}

func transportIs(proto byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, equal([]byte{proto})}
}

func equal(data []byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data} }

package ruleset

import (
	"net/netip"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"honeysens.org/dockersensor/shared/helperapi"
)

// Chain is a list of rules.
type Chain struct {
	Name string
	// Base is set for chains that the kernel enters by itself.
	Base  *Base
	Rules []Rule
}

// Base says where a chain hangs.
type Base struct {
	Type     nftables.ChainType
	Hook     *nftables.ChainHook
	Priority int32
}

// Priorities. Docker and iptables translate destinations at -100, sources at
// 100, and filter at 0.
const (
	// priorityBefore is for assigned ports that win over ports which Docker
	// publishes.
	priorityBefore = -101
	// priorityAfter is for assigned ports that do not.
	priorityAfter = -99
	// priorityLast is for the catch-all: behind everybody.
	priorityLast = -98
	// priorityFilter is before other filters, so that what a service may not do
	// is counted here.
	priorityFilter = -10
	// priorityCount is before the translation of sources by others, which would
	// end the walk through the chains.
	priorityCount = 99
	// priorityRecord is behind the translation of sources: what matters is the
	// packet as it leaves.
	priorityRecord = 300
	// priorityArrived is behind the translation of destinations, whoever does it.
	priorityArrived = 300
)

// refused is the counter of what services tried and may not.
const refused = "refused"

// builder puts the chains together.
type builder struct {
	Config
	sets
}

func (b *builder) chains() []Chain {
	return []Chain{
		b.assignedChain(), b.assignChain(), b.catchallChain(), b.catchChain(), b.guardChain(), b.arrivedChain(), b.publishedChain(), b.strangersChain(),
		b.sentChain(), b.rememberChain(), b.countedChain(),
		b.forwardedChain(), b.toServicesChain(), b.admitChain(), b.fromServicesChain(), b.beginChain(), b.refuseChain(), b.noteChain(), b.transitChain(),
		b.receivedChain(), b.toHostChain(), b.silenceChain(),
	}
}

func base(kind nftables.ChainType, hook *nftables.ChainHook, priority int32) *Base {
	return &Base{Type: kind, Hook: hook, Priority: priority}
}

func (b *builder) assignedChain() Chain {
	priority := int32(priorityAfter)
	if b.HostPorts == helperapi.HostPortsAssigned {
		priority = priorityBefore
	}
	return Chain{
		Name: "assigned",
		Base: base(nftables.ChainTypeNAT, nftables.ChainHookPrerouting, priority),
		Rules: []Rule{rule("a port that belongs to a service",
			in(b.ifaces, iifname()), toHost(), in(b.assigned, protocol(), destinationPort()), jump("assign"))},
	}
}

func (b *builder) assignChain() Chain {
	c := Chain{Name: "assign", Rules: []Rule{rule("never redirected", jump("guard"))}}
	c.Rules = append(c.Rules, b.hostWins()...)
	c.Rules = append(c.Rules,
		rule("to the service", dnat(b.assigned4, onlyIPv4(), protocol(), destinationPort())),
		rule("to the service", dnat(b.assigned6, onlyIPv6(), protocol(), destinationPort())))
	return c
}

// hostWins are the rules that leave a port to the host. The catch-all, which
// comes next, records that the host has it.
func (b *builder) hostWins() []Rule {
	if b.HostPorts == helperapi.HostPortsProtect {
		return []Rule{rule("the host uses it", anySocket(), accept())}
	}
	return []Rule{
		rule("the host uses it, on an address", boundSocket(), accept()),
		rule("the host uses it on all addresses, and loses it here", wildcardSocket(), remember(b.taken, protocol(), destinationPort())),
	}
}

func (b *builder) catchallChain() Chain {
	return Chain{
		Name:  "catchall",
		Base:  base(nftables.ChainTypeNAT, nftables.ChainHookPrerouting, priorityLast),
		Rules: []Rule{rule("everything else", in(b.ifaces, iifname()), toHost(), jump("catch"))},
	}
}

func (b *builder) catchChain() Chain {
	return Chain{Name: "catch", Rules: []Rule{
		rule("never redirected", jump("guard")),
		// Recording is a rule of its own because it ends there when the set is full.
		rule("the host uses it", anySocket(), remember(b.kept, protocol(), destinationPort())),
		rule("so the host keeps it", anySocket(), accept()),
		rule("to the catch-all", dnat(b.catchall4, onlyIPv4(), protocol())),
		rule("to the catch-all", dnat(b.catchall6, onlyIPv6(), protocol())),
	}}
}

// guardChain leaves to the host what is not an attack, whoever wants the port.
func (b *builder) guardChain() Chain {
	linkLocal := netip.MustParsePrefix("fe80::/10")
	c := Chain{Name: "guard", Rules: []Rule{
		rule("protected ports", in(b.protected, protocol(), destinationPort()), accept()),
		rule("late packets of connections that are forgotten", notOpening(), accept()),
		rule("answers of DHCP servers", in(b.dhcpClients, udpDestination()), accept()),
		rule("answers could not be routed back", within(source(true), linkLocal), accept()),
		rule("nobody out there has an address of a service", within(source(false), b.V4), accept()),
	}}
	if b.V6.IsValid() {
		c.Rules = append(c.Rules, rule("nobody out there has an address of a service", within(source(true), b.V6), accept()))
	}
	c.Rules = append(c.Rules,
		rule("answers to the host, from one it asked", in(b.own4, flowBack(false)...), accept()),
		rule("answers to the host, from one it asked", in(b.own6, flowBack(true)...), accept()),
		rule("answers to the host, which asked many at once", in(b.ownPorts, udpDestination()), accept()))
	return c
}

// flow and flowBack read the same key from what the host sends and from the
// answer: its address and port, then those of the other side.
func flow(v6 bool) []field {
	return []field{source(v6), udpSource(), destination(v6), udpDestination()}
}

func flowBack(v6 bool) []field {
	return []field{destination(v6), udpDestination(), source(v6), udpSource()}
}

// sentChain sees what leaves, after all translation. So it also knows what the
// host has sent for containers of its own.
func (b *builder) sentChain() Chain {
	return Chain{
		Name: "sent",
		Base: base(nftables.ChainTypeFilter, nftables.ChainHookPostrouting, priorityRecord),
		Rules: append([]Rule{rule("UDP that the host sends by itself",
			equals(oifname(), interfaceName(b.Iface)), onlyUDP(), direction(false), fromHost(), jump("remember"))},
			b.ownDistance()...),
	}
}

func (b *builder) rememberChain() Chain {
	return Chain{Name: "remember", Rules: []Rule{
		rule("to many: anybody may answer", toMany(), remember(b.ownPorts, udpSource())),
		rule("to one: that one may answer", remember(b.own4, flow(false)...)),
		rule("to one: that one may answer", remember(b.own6, flow(true)...)),
	}}
}

// countedChain is of type nat because such chains see the first packet of each
// connection, and no other.
func (b *builder) countedChain() Chain {
	bridge := interfaceName(b.Bridge)
	c := Chain{
		Name: "counted",
		Base: base(nftables.ChainTypeNAT, nftables.ChainHookPostrouting, priorityCount),
		Rules: []Rule{
			rule("connections led to a service", equals(oifname(), bridge), translated(), in(b.redirected4, destination(false))),
			rule("connections led to a service", equals(oifname(), bridge), translated(), in(b.redirected6, destination(true))),
		},
	}
	if b.Egress != helperapi.EgressDeny {
		c.Rules = append(c.Rules,
			rule("services go out by the address of the host", differs(oifname(), bridge), in(b.services4, source(false)), masquerade()),
			rule("services go out by the address of the host", differs(oifname(), bridge), in(b.services6, source(true)), masquerade()))
	}
	return c
}

func (b *builder) forwardedChain() Chain {
	bridge := interfaceName(b.Bridge)
	c := Chain{
		Name: "forwarded",
		Base: base(nftables.ChainTypeFilter, nftables.ChainHookForward, priorityFilter),
		Rules: []Rule{
			rule("what services send", equals(iifname(), bridge), jump("from_services")),
			rule("what services get", equals(oifname(), bridge), jump("to_services")),
		},
	}
	c.Rules = append(c.Rules, b.noRouter()...)
	return c
}

func (b *builder) toServicesChain() Chain {
	return Chain{Name: "to_services", Rules: []Rule{
		rule("connections that exist, and errors about them", followsUp(), accept()),
		rule("connections that were redirected", equals(iifname(), interfaceName(b.Iface)), translated(), jump("admit")),
		rule("nobody else reaches a service", drop()),
	}}
}

func (b *builder) fromServicesChain() Chain {
	c := Chain{Name: "from_services", Rules: append(b.realSources(),
		rule("answers to those who came, and errors about them", followsUp(), direction(true), accept()),
		rule("belongs to nothing", invalid(), drop()))}
	c.Rules = append(c.Rules, b.egress()...)
	c.Rules = append(c.Rules,
		rule("what is left of a connection that is forgotten", notOpening(), drop()),
		rule("nothing else", jump("refuse")))
	return c
}

// realSources drops what does not come from the address of a service.
func (b *builder) realSources() []Rule {
	return []Rule{
		rule("an address that no service has", notIn(b.services4, source(false)), count(refused), drop()),
		rule("an address that no service has", notIn(b.services6, source(true)), count(refused), drop()),
	}
}

func (b *builder) egress() []Rule {
	switch b.Egress {
	case helperapi.EgressInternet:
		global := netip.MustParsePrefix("2000::/3")
		out := equals(oifname(), interfaceName(b.Iface))
		return []Rule{
			rule("public addresses", out, notIn(b.private4, destination(false)), jump("begin")),
			rule("public addresses", out, within(destination(true), global), notIn(b.special6, destination(true)), jump("begin")),
		}
	case helperapi.EgressAll:
		return []Rule{rule("everything out there", differs(oifname(), interfaceName(b.Bridge)), jump("begin"))}
	default:
		return nil
	}
}

func (b *builder) receivedChain() Chain {
	return Chain{
		Name: "received",
		Base: base(nftables.ChainTypeFilter, nftables.ChainHookInput, priorityFilter),
		Rules: append([]Rule{rule("what services send to the host", equals(iifname(), interfaceName(b.Bridge)), jump("to_host"))},
			b.probes()...),
	}
}

func (b *builder) toHostChain() Chain {
	c := Chain{Name: "to_host", Rules: []Rule{
		rule("neighbour discovery", in(b.neighbours, icmpv6Type()), accept()),
		rule("no attempt of anybody", in(b.chatter, icmpv6Type()), drop()),
		rule("no attempt of anybody", equals(protocol(), Value{Text: "igmp", Data: []byte{unix.IPPROTO_IGMP}}), drop()),
	}}
	c.Rules = append(c.Rules, b.realSources()...)
	c.Rules = append(c.Rules,
		rule("answers to the host", established(), direction(true), accept()),
		b.collector(b.GatewayV4))
	if b.GatewayV6.IsValid() {
		c.Rules = append(c.Rules, b.collector(b.GatewayV6))
	}
	c.Rules = append(c.Rules,
		rule("belongs to nothing", invalid(), drop()),
		rule("what is left of a connection that is forgotten", notOpening(), drop()),
		rule("nothing else", jump("refuse")))
	return c
}

func (b *builder) collector(gateway netip.Addr) Rule {
	return rule("the collector", equals(destination(gateway.Is6()), address(gateway)), equals(tcpDestination(), number(b.CollectorPort)), jump("begin"))
}

package ruleset

import (
	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// bridgeKind is the kind of interfaces that are bridges.
func bridgeKind() Value { return interfaceName("bridge") }

// noRouter are the rules that keep the host from routing for strangers only
// because the sensor has switched forwarding on.
//
// With br_netfilter frames that a bridge passes from port to port are seen
// here, too, as coming from that bridge and leaving by it. They are left alone.
func (b *builder) noRouter() []Rule {
	const why = "the host was no router"
	var rules []Rule
	from, away := equals(iifname(), interfaceName(b.Iface)), differs(oifname(), interfaceName(b.Iface))
	if b.ForwardingWasOffV4 {
		rules = append(rules, rule(why, onlyIPv4(), from, away, jump("transit")))
	}
	if b.ForwardingWasOffV6 {
		rules = append(rules, rule(why, onlyIPv6(), from, away, jump("transit")))
	}
	if b.ForwardingWasOffV6 && b.ForwardingAllV6 {
		const all = "nor between other interfaces, which the switch has opened as well"
		rules = append(rules,
			rule(all, onlyIPv6(), differs(iifkind(), bridgeKind()), jump("transit")),
			rule(all, onlyIPv6(), differs(oifkind(), bridgeKind()), jump("transit")))
	}
	return rules
}

// arrivedChain sees packets after all translation and before the routing
// decision, so before the kernel would tell a stranger by a redirect or an
// error that it routes now.
func (b *builder) arrivedChain() Chain {
	c := Chain{
		Name:  "arrived",
		Base:  base(nftables.ChainTypeFilter, nftables.ChainHookPrerouting, priorityArrived),
		Rules: append(b.lastHop(), rule("led somewhere", in(b.ifaces, iifname()), opens(), translated(), jump("published"))),
	}
	from := equals(iifname(), interfaceName(b.Iface))
	routed := differs(iifkind(), bridgeKind())
	if b.ForwardingWasOffV4 {
		c.Rules = append(c.Rules, rule("the host was no router", onlyIPv4(), from, routed, jump("strangers")))
	}
	if b.ForwardingWasOffV6 {
		c.Rules = append(c.Rules, rule("the host was no router", onlyIPv6(), from, routed, jump("strangers")))
	}
	return c
}

// publishedChain records ports that somebody else leads elsewhere, such as
// Docker to a container: nothing else shows that a service does not get them.
func (b *builder) publishedChain() Chain {
	const why = "somebody else leads it elsewhere"
	record := remember(b.published, protocol(), originalPort())
	return Chain{Name: "published", Rules: []Rule{
		rule("a service gets it", in(b.services4, destination(false)), accept()),
		rule("a service gets it", in(b.services6, destination(true)), accept()),
		rule(why, onlyTCP(), record),
		rule(why, onlyUDP(), record),
	}}
}

// strangersChain leaves alone what is not forwarded.
func (b *builder) strangersChain() Chain {
	return Chain{Name: "strangers", Rules: []Rule{
		rule("for the host", toHost(), accept()),
		rule("for many", toType("broadcast", unix.RTN_BROADCAST), accept()),
		rule("for many", toType("multicast", unix.RTN_MULTICAST), accept()),
		rule("for one of many", toType("anycast", unix.RTN_ANYCAST), accept()),
		rule("neither redirect nor error", jump("transit")),
	}}
}

// transitChain lets pass what somebody has translated on purpose, such as a
// port that Docker publishes.
func (b *builder) transitChain() Chain {
	return Chain{Name: "transit", Rules: []Rule{
		rule("somebody has led it there", translated(), accept()),
		rule("answers to what was sent from there", direction(true), accept()),
		rule("the host is no router", drop()),
	}}
}

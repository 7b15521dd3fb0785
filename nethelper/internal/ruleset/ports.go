package ruleset

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// portSets are the sets of the table at the ports of the bridge.
type portSets struct {
	ports, forged, flooded, sent, got, places4, places6 *Set
	routers, chatter, dhcp                              *Set
}

func newPortSets(cfg Config) portSets {
	name := kindOf(nftables.TypeIFName)
	place4 := kindOf(nftables.TypeIFName, nftables.TypeEtherAddr, nftables.TypeIPAddr)
	place6 := kindOf(nftables.TypeIFName, nftables.TypeEtherAddr, nftables.TypeIP6Addr)
	per := fmt.Sprintf(", up to %d a second", cfg.Bounds.Packets)
	s := portSets{
		forged:  &Set{Name: Forged, Comment: "frames under the address of somebody else", Key: name, Keep: KeepCounted},
		flooded: &Set{Name: Flooded, Comment: "frames above the bound", Key: name, Keep: KeepCounted},
		sent:    metered("sent", "frames from each port"+per, name),
		got:     metered("got", "frames to each port"+per, name),
		ports:   &Set{Name: "ports", Comment: "those with a service", Key: name},
		places4: &Set{Name: "places4", Comment: "who may be where", Key: place4},
		places6: &Set{Name: "places6", Comment: "who may be where", Key: place6},
		routers: &Set{Name: "routers", Comment: "what only routers say", Key: kindOf(nftables.TypeICMP6Type)},
		chatter: chatter(),
		dhcp:    &Set{Name: "dhcp", Comment: "from a DHCP server to a client", Key: kindOf(nftables.TypeInetService, nftables.TypeInetService)},
	}
	// RFC 4861.
	s.routers.add(icmpv6("nd-router-advert", 134))
	s.routers.add(icmpv6("nd-redirect", 137))
	s.dhcp.add(join(number(67), number(68)))
	s.dhcp.add(join(number(547), number(546)))
	for _, svc := range cfg.Services {
		if svc.Port != "" {
			s.fill(svc)
		}
	}
	return s
}

func (s *portSets) fill(svc Service) {
	port, mac := interfaceName(svc.Port), hardware(svc.MAC)
	s.ports.add(port)
	for _, counted := range []*Set{s.forged, s.flooded} {
		counted.Elements = append(counted.Elements, Element{Key: port, Comment: svc.ID})
	}
	if svc.V4.IsValid() {
		s.places4.add(join(port, mac, address(svc.V4)))
	}
	if svc.V6.IsValid() {
		s.places6.add(join(port, mac, address(svc.V6)))
		// Neighbour discovery uses it now and then.
		s.places6.add(join(port, mac, address(linkLocal(svc.MAC))))
	}
}

// linkLocal is the address that a kernel derives from a hardware address: RFC
// 4291, appendix A.
func linkLocal(mac net.HardwareAddr) netip.Addr {
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]})
}

func (s *portSets) list() []*Set {
	return []*Set{s.sent, s.got, s.forged, s.flooded, s.ports, s.places4, s.places6, s.routers, s.dhcp, s.chatter}
}

// priorityFirst is before whatever others do with frames, br_netfilter among
// them, and before the bridge learns addresses.
const priorityFirst = -300

// portsTable is the table at the ports of the bridge. There, and not behind it,
// a sender is known by its cable.
func portsTable(name string, cfg Config) *Table {
	s := newPortSets(cfg)
	return &Table{
		Name: name, Family: nftables.TableFamilyBridge, Sets: s.list(), cfg: cfg,
		Chains: []Chain{
			{
				Name: "from_ports", Base: base(nftables.ChainTypeFilter, nftables.ChainHookPrerouting, priorityFirst),
				Rules: []Rule{rule("what services send", in(s.ports, iifname()), jump("genuine"))},
			},
			{Name: "genuine", Rules: s.genuine(cfg.Bounds)},
			{
				Name: "to_ports", Base: base(nftables.ChainTypeFilter, nftables.ChainHookPostrouting, priorityRecord),
				Rules: []Rule{rule("too many at once", in(s.ports, oifname()), each(s.got, over(cfg.Bounds.Packets), oifname()), in(s.flooded, oifname()), drop())},
			},
		},
	}
}

// genuine are the rules about a frame of a service.
func (s *portSets) genuine(bounds Bounds) []Rule {
	v4, v6 := framed(source(false), unix.ETH_P_IP), framed(source(true), unix.ETH_P_IPV6)
	none4, none6 := Value{Text: "0.0.0.0", Data: make([]byte, 4)}, Value{Text: "::", Data: make([]byte, 16)}
	const nameless = "from an interface that has no address yet"
	return []Rule{
		rule("too many at once", each(s.sent, over(bounds.Packets), iifname()), in(s.flooded, iifname()), drop()),
		rule("plays the router", in(s.routers, neighbourType()), in(s.forged, iifname()), drop()),
		rule("plays the DHCP server", in(s.dhcp, udpSource(), udpDestination()), in(s.forged, iifname()), drop()),
		rule("under its own address", in(s.places4, iifname(), etherSource(), v4), accept()),
		rule("under its own address", in(s.places6, iifname(), etherSource(), v6), accept()),
		rule("asks and answers for its own address", in(s.places4, iifname(), etherSource(), arpSource()),
			in(s.places4, iifname(), arpHardware(), arpSource()), accept()),
		rule(nameless, equals(v4, none4), drop()),
		rule(nameless, equals(v6, none6), drop()),
		rule(nameless, equals(arpSource(), none4), drop()),
		rule("no attempt of anybody", in(s.chatter, neighbourType()), drop()),
		rule("everything else", in(s.forged, iifname()), drop()),
	}
}

// framed is a field of a packet whose kind the frame tells: in a table of family
// bridge there is nothing else to go by.
func framed(f field, kind uint16) field {
	f.needs = protocols{frame: kind, transport: f.needs.transport}
	return f
}

func etherSource() field {
	return payload("ether saddr", expr.PayloadBaseLLHeader, 6, 6, protocols{})
}

// arpSource is the IPv4 address of the sender: RFC 826, for Ethernet.
func arpSource() field {
	return payload("arp saddr ip", expr.PayloadBaseNetworkHeader, 14, 4, protocols{frame: unix.ETH_P_ARP})
}

// arpHardware is the hardware address that the sender says it has.
func arpHardware() field {
	return payload("arp saddr ether", expr.PayloadBaseNetworkHeader, 8, 6, protocols{frame: unix.ETH_P_ARP})
}

// neighbourType is the type of a message of ICMPv6, at the ports of a bridge.
func neighbourType() field { return framed(icmpv6Type(), unix.ETH_P_IPV6) }

func hardware(mac net.HardwareAddr) Value { return Value{Text: mac.String(), Data: mac} }

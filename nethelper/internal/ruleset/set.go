package ruleset

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/google/nftables"

	"honeysens.org/dockersensor/shared/helperapi"
)

// Keep says what happens to the elements in the kernel when the table is
// applied again.
type Keep int

// What can happen to elements.
const (
	// KeepNothing: the set is made anew with its elements.
	KeepNothing Keep = iota
	// KeepCounted: elements that are still wanted stay, with their counters.
	KeepCounted
	// KeepAll: packets write the elements; they stay until they time out.
	KeepAll
)

// Set is a named set, or a map when it has Data.
type Set struct {
	Name    string
	Comment string
	Key     Kind
	Data    Kind
	Keep    Keep
	// Interval sets have elements that are ranges.
	Interval bool
	// Timeout is how long an element lasts; 0 is for ever.
	Timeout time.Duration
	// Size is the largest number of elements; 0 is no limit.
	Size     uint32
	Elements []Element
}

// Counter tells whether each element counts the packets that it matches.
func (s *Set) Counter() bool { return s.Keep == KeepCounted }

// IsMap tells whether keys lead to data.
func (s *Set) IsMap() bool { return len(s.Data.parts) > 0 }

// Element is a member of a set.
type Element struct {
	Key Value
	// Data is for maps.
	Data Value
	// End is for intervals: the first key behind it, or nil when the interval
	// reaches the last key.
	End     []byte
	Comment string
}

// Sizes and timeouts of what packets write.
const (
	// ownFlows is how many UDP flows of the host are remembered. When there are
	// more, the answers to the newest may be taken for attacks.
	ownFlows = 65535
	// ownFlowTimeout is how long after the last packet of a flow its answers are
	// still answers. Conntrack itself forgets a flow after 30 to 120 seconds.
	ownFlowTimeout = 5 * time.Minute
	// conflictTimeout is how long a port counts as used by the host after the
	// last attempt to reach it.
	conflictTimeout = time.Hour
	// publishedTimeout is shorter: whether the port is still led elsewhere shows
	// by packets only.
	publishedTimeout = 10 * time.Minute
	// meterTimeout is far longer than any bound remembers.
	meterTimeout = 5 * time.Minute
)

// sets are all sets of a table, by the role that they play.
type sets struct {
	ifaces, protected, dhcpClients          *Set
	assigned, assigned4, assigned6          *Set
	catchall4, catchall6, caught            *Set
	ownPorts, own4, own6                    *Set
	kept, taken, published                  *Set
	services4, services6                    *Set
	redirected4, redirected6                *Set
	refused4, refused6, bounded4, bounded6  *Set
	noted4, noted6, tried4, tried6          *Set
	opened4, opened6, begun4, begun6        *Set
	tracked4, tracked6                      *Set
	neighbours, chatter, private4, special6 *Set
	ported                                  *Set
}

func newSets(cfg Config) sets {
	protoPort := kindOf(nftables.TypeInetProto, nftables.TypeInetService)
	proto := kindOf(nftables.TypeInetProto)
	service := kindOf(nftables.TypeInetService)
	v4, v6 := kindOf(nftables.TypeIPAddr), kindOf(nftables.TypeIP6Addr)
	to4 := kindOf(nftables.TypeIPAddr, nftables.TypeInetService)
	to6 := kindOf(nftables.TypeIP6Addr, nftables.TypeInetService)
	flow4 := kindOf(nftables.TypeIPAddr, nftables.TypeInetService, nftables.TypeIPAddr, nftables.TypeInetService)
	flow6 := kindOf(nftables.TypeIP6Addr, nftables.TypeInetService, nftables.TypeIP6Addr, nftables.TypeInetService)
	icmp := kindOf(nftables.TypeICMP6Type)
	s := sets{
		ifaces:      &Set{Name: "ifaces", Comment: "redirected as long as the helper lives", Key: kindOf(nftables.TypeIFName), Timeout: cfg.Heartbeat},
		protected:   &Set{Name: "protected", Comment: "never redirected", Key: protoPort},
		dhcpClients: &Set{Name: "dhcp_clients", Comment: "DHCP of IPv4 and IPv6, client side", Key: service},
		assigned:    &Set{Name: "assigned", Comment: "ports that belong to a service", Key: protoPort},
		assigned4:   &Set{Name: "assigned4", Comment: "and where they lead", Key: protoPort, Data: to4},
		assigned6:   &Set{Name: "assigned6", Comment: "and where they lead", Key: protoPort, Data: to6},
		catchall4:   &Set{Name: "catchall4", Comment: "where everything else leads", Key: proto, Data: v4},
		catchall6:   &Set{Name: "catchall6", Comment: "where everything else leads", Key: proto, Data: v6},
		caught:      &Set{Name: "caught", Comment: "protocols of which everything else is led on", Key: proto},
		ownPorts:    recorded("own_ports", "ports from which the host asked many at once", service, ownFlowTimeout),
		own4:        recorded("own4", "UDP that the host has sent", flow4, ownFlowTimeout),
		own6:        recorded("own6", "UDP that the host has sent", flow6, ownFlowTimeout),
		kept:        recorded("kept", "wanted ports that the host uses itself", protoPort, conflictTimeout),
		taken:       recorded("taken", "assigned ports taken from a program of the host", protoPort, conflictTimeout),
		published:   recorded("published", "ports that somebody else has led elsewhere", protoPort, publishedTimeout),
		services4:   &Set{Name: "services4", Comment: "addresses of services", Key: v4},
		services6:   &Set{Name: "services6", Comment: "addresses of services", Key: v6},
		redirected4: &Set{Name: "redirected4", Comment: "connections led to each service", Key: v4, Keep: KeepCounted},
		redirected6: &Set{Name: "redirected6", Comment: "connections led to each service", Key: v6, Keep: KeepCounted},
		refused4:    &Set{Name: Refused4, Comment: "what each service tried and may not", Key: v4, Keep: KeepCounted},
		refused6:    &Set{Name: Refused6, Comment: "what each service tried and may not", Key: v6, Keep: KeepCounted},
		bounded4:    &Set{Name: Bounded4, Comment: "what was above the bounds of each service", Key: v4, Keep: KeepCounted},
		bounded6:    &Set{Name: Bounded6, Comment: "what was above the bounds of each service", Key: v6, Keep: KeepCounted},
		ported:      &Set{Name: "ported", Comment: "protocols with ports", Key: proto},
		neighbours:  &Set{Name: "neighbours", Comment: "neighbour discovery", Key: icmp},
		chatter:     chatter(),
		private4:    &Set{Name: "private4", Comment: "not public: RFC 6890", Key: v4, Interval: true},
		special6:    &Set{Name: "special6", Comment: "not public although in 2000::/3: RFC 6890", Key: v6, Interval: true},
	}
	s.meters(cfg.Bounds, v4, v6)
	s.fillConstants(cfg)
	for _, svc := range cfg.Services {
		s.fillService(svc)
	}
	return s
}

// meters are the sets whose elements remember what a service has had. An element
// keeps the bound that it was made with.
func (s *sets) meters(bounds Bounds, v4, v6 Kind) {
	opened := fmt.Sprintf("new connections to each service, up to %d a second", bounds.Opened)
	begun := fmt.Sprintf("connections that each service begins, up to %d a second", bounds.Begun)
	tracked := fmt.Sprintf("connections of each service, up to %d", bounds.Tracked)
	tried4 := kindOf(nftables.TypeIPAddr, nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService)
	tried6 := kindOf(nftables.TypeIP6Addr, nftables.TypeIP6Addr, nftables.TypeInetProto, nftables.TypeInetService)
	s.opened4, s.opened6 = metered("opened4", opened, v4), metered("opened6", opened, v6)
	s.begun4, s.begun6 = metered("begun4", begun, v4), metered("begun6", begun, v6)
	s.tracked4, s.tracked6 = metered("tracked4", tracked, v4), metered("tracked6", tracked, v6)
	// The kernel removes an element of these when its last connection has ended.
	s.tracked4.Timeout, s.tracked6.Timeout = 0, 0
	s.noted4, s.noted6 = metered("noted4", "who was noted in tried4", v4), metered("noted6", "who was noted in tried6", v6)
	s.tried4 = recorded(Tried4, "where services wanted to go", tried4, triedTimeout)
	s.tried6 = recorded(Tried6, "where services wanted to go", tried6, triedTimeout)
}

// chatter is the set of what nobody means: RFC 4861 and RFC 3810, RFC 2710.
func chatter() *Set {
	s := &Set{Name: "chatter", Comment: "what every IPv6 stack says by itself", Key: kindOf(nftables.TypeICMP6Type)}
	s.add(icmpv6("mld-listener-report", 131))
	s.add(icmpv6("mld-listener-done", 132))
	s.add(icmpv6("nd-router-solicit", 133))
	s.add(icmpv6("mld2-listener-report", 143))
	return s
}

// metered has an element for each service that was heard of within the last
// minutes.
func metered(name, comment string, key Kind) *Set {
	return &Set{Name: name, Comment: comment, Key: key, Keep: KeepAll, Timeout: meterTimeout, Size: 4 * helperapi.MaxServices}
}

func recorded(name, comment string, key Kind, timeout time.Duration) *Set {
	return &Set{Name: name, Comment: comment, Key: key, Keep: KeepAll, Timeout: timeout, Size: ownFlows}
}

func (s *Set) add(key Value) { s.Elements = append(s.Elements, Element{Key: key}) }

func (s *Set) lead(key, to Value) { s.Elements = append(s.Elements, Element{Key: key, Data: to}) }

func (s *sets) fillConstants(cfg Config) {
	s.ifaces.add(interfaceName(cfg.Iface))
	seen := map[helperapi.Port]bool{}
	for _, p := range cfg.Protected {
		if !seen[p] {
			seen[p] = true
			s.protected.add(port(p))
		}
	}
	s.dhcpClients.add(number(68))
	s.dhcpClients.add(number(546))
	s.ported.add(transport(helperapi.TCP))
	s.ported.add(transport(helperapi.UDP))
	// RFC 4861.
	s.neighbours.add(icmpv6("nd-neighbor-solicit", 135))
	s.neighbours.add(icmpv6("nd-neighbor-advert", 136))
	s.private4.addPrefixes("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
		"192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24",
		"203.0.113.0/24", "224.0.0.0/3")
	// 2002::/16 holds IPv4 addresses, private ones too.
	s.special6.addPrefixes("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
}

func (s *sets) fillService(svc Service) {
	for _, addr := range []netip.Addr{svc.V4, svc.V6} {
		if addr.IsValid() {
			s.fillAddress(svc, addr)
		}
	}
	for _, a := range svc.Ports {
		s.assigned.add(port(a.Port))
	}
	if svc.CatchAll {
		s.caught.add(transport(helperapi.TCP))
		s.caught.add(transport(helperapi.UDP))
	}
}

func (s *sets) fillAddress(svc Service, addr netip.Addr) {
	services, redirected, assigned, catchall := s.services4, s.redirected4, s.assigned4, s.catchall4
	refused, bounded := s.refused4, s.bounded4
	if addr.Is6() {
		services, redirected, assigned, catchall = s.services6, s.redirected6, s.assigned6, s.catchall6
		refused, bounded = s.refused6, s.bounded6
	}
	services.add(address(addr))
	for _, counted := range []*Set{redirected, refused, bounded} {
		counted.Elements = append(counted.Elements, Element{Key: address(addr), Comment: svc.ID})
	}
	for _, a := range svc.Ports {
		assigned.lead(port(a.Port), join(address(addr), number(a.To)))
	}
	if svc.CatchAll {
		catchall.lead(transport(helperapi.TCP), address(addr))
		catchall.lead(transport(helperapi.UDP), address(addr))
	}
}

func (s *Set) addPrefixes(prefixes ...string) {
	for _, text := range prefixes {
		p := netip.MustParsePrefix(text)
		s.Elements = append(s.Elements, Element{Key: Value{Text: text, Data: p.Addr().AsSlice()}, End: behind(p)})
	}
}

// behind returns the first address behind a prefix, or nil when there is none.
func behind(p netip.Prefix) []byte {
	last := p.Masked().Addr().AsSlice()
	for i, m := range prefixMask(p) {
		last[i] |= ^m
	}
	addr, _ := netip.AddrFromSlice(last)
	if next := addr.Next(); next.IsValid() {
		return next.AsSlice()
	}
	return nil
}

// list returns the sets in the order in which they are shown: first those that
// stay when the table is applied again, so that the order stays, too.
func (s *sets) list(cfg Config) []*Set {
	all := []*Set{
		s.ownPorts, s.own4, s.own6, s.kept, s.taken, s.published, s.redirected4, s.redirected6,
		s.refused4, s.refused6, s.noted4, s.noted6, s.tried4, s.tried6,
		s.bounded4, s.bounded6, s.opened4, s.opened6, s.begun4, s.begun6,
	}
	if !cfg.Lacks.Tracked {
		all = append(all, s.tracked4, s.tracked6)
	}
	all = append(all,
		s.ifaces, s.protected, s.dhcpClients,
		s.assigned, s.assigned4, s.assigned6, s.catchall4, s.catchall6, s.caught,
		s.services4, s.services6, s.ported, s.neighbours, s.chatter)
	if cfg.Egress == helperapi.EgressInternet {
		all = append(all, s.private4, s.special6)
	}
	return all
}

// Package policy decides whether this sensor may have what the manager wants.
// What is possible at all was checked before, by helperapi. It decides purely:
// what it must know of the host is handed in.
//
// It refuses: another interface than the one the helper was started with,
// networks for services that are not private or too small or too large, those
// that the host uses itself, and more egress than the operator allowed.
package policy

import (
	"fmt"
	"net/netip"

	"honeysens.org/dockersensor/shared/helperapi"
)

// Rights are what the operator gave the sensor when it was started.
type Rights struct {
	Iface  string
	Egress helperapi.Egress
}

// Use is a network that the host uses: that of an address or of a route.
type Use struct {
	Net netip.Prefix
	// Link is the interface it is at.
	Link string
	// Direct is true for networks at the link itself, false for those behind a
	// gateway.
	Direct bool
}

// Limits of the service network. Larger ones would take what companies route,
// smaller ones have no room for a handful of services.
const (
	minBits = 16
	maxBits = 29
	bitsV6  = 64
)

// Check returns why the sensor may not have the state, as *helperapi.Error of
// KindDenied or KindConflict, or nil. uses are those of the host without the
// sensor's own bridge.
func Check(n *helperapi.Network, rights Rights, uses []Use) error {
	if n.Interface.Name != rights.Iface {
		return denied("interface %s: the sensor was started for %s (IFACE)", n.Interface.Name, rights.Iface)
	}
	if looseness(n.Egress) > looseness(rights.Egress) {
		return denied("egress %s: the sensor was started with %s (EGRESS)", n.Egress, rights.Egress)
	}
	if err := checkV4(n.Bridge.V4); err != nil {
		return err
	}
	if err := checkV6(n.Bridge.V6); err != nil {
		return err
	}
	if room := 1<<(32-n.Bridge.V4.Bits()) - reserved; len(n.Services) > room {
		return denied("%d services: the service network %v has room for %d", len(n.Services), n.Bridge.V4, room)
	}
	return checkUses(n, uses)
}

// reserved are the network's own, the broadcast and the gateway address.
const reserved = 3

// looseness orders the policies; what is unknown is the loosest as a wish.
func looseness(e helperapi.Egress) int {
	switch e {
	case helperapi.EgressDeny, "":
		return 0
	case helperapi.EgressInternet:
		return 1
	case helperapi.EgressAll:
		return 2
	}
	return 3
}

func checkV4(network netip.Prefix) error {
	if bits := network.Bits(); bits < minBits || bits > maxBits {
		return denied("service network %v: want /%d to /%d", network, minBits, maxBits)
	}
	if !network.Addr().IsPrivate() {
		return denied("service network %v: want one of 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16", network)
	}
	return nil
}

func checkV6(network netip.Prefix) error {
	if network == (netip.Prefix{}) {
		return nil
	}
	if network.Bits() != bitsV6 || !network.Addr().IsPrivate() {
		return denied("service network %v: want a /%d within fd00::/8", network, bitsV6)
	}
	return nil
}

func checkUses(n *helperapi.Network, uses []Use) error {
	wanted := []netip.Prefix{n.Bridge.V4}
	if n.Bridge.V6.IsValid() {
		wanted = append(wanted, n.Bridge.V6)
	}
	if n.Interface.Mode == helperapi.ModeStatic {
		if err := CheckAddress(n.Interface.Name, n.Interface.Address, wanted, uses); err != nil {
			return err
		}
		uses = append(uses[:len(uses):len(uses)], Use{Net: n.Interface.Address.Masked(), Link: n.Interface.Name, Direct: true})
	}
	for _, network := range wanted {
		for _, use := range uses {
			if collides(network, use) {
				return conflict("service network %v: the host uses %v at %s; set another service network at the server", network, use.Net, use.Link)
			}
		}
	}
	return nil
}

// collides lets a wider route through a gateway pass, as it does the default
// route: the bridge is the more specific one and wins for its own addresses only.
func collides(network netip.Prefix, use Use) bool {
	if !network.Overlaps(use.Net) {
		return false
	}
	return use.Direct || use.Net.Bits() >= network.Bits()
}

// minAddressBits is the widest IPv4 network that an interface may get.
const minAddressBits = 8

// CheckAddress returns why an interface may not get an address, as
// *helperapi.Error of KindDenied or KindConflict, or nil. It is for addresses
// that come from elsewhere: the network of one must not take traffic that the
// host sends to other interfaces now. A network as wide as the host's own is no
// harm, since the routes of the sensor have the higher metric.
func CheckAddress(iface string, address netip.Prefix, services []netip.Prefix, uses []Use) error {
	network := address.Masked()
	if address.Addr().Is4() && address.Bits() < minAddressBits {
		return denied("address %v: want a network of /%d or smaller", address, minAddressBits)
	}
	for _, service := range services {
		if service.IsValid() && service.Overlaps(network) {
			return conflict("address %v at %s: its network overlaps the service network %v; set another service network at the server", address, iface, service)
		}
	}
	for _, use := range uses {
		if use.Link != iface && use.Net.Bits() > 0 && use.Net.Bits() < network.Bits() && use.Net.Overlaps(network) {
			return conflict("address %v at %s: the host reaches its network through %s", address, iface, use.Link)
		}
	}
	return nil
}

func denied(format string, args ...any) error {
	return &helperapi.Error{Kind: helperapi.KindDenied, Message: fmt.Sprintf(format, args...)}
}

func conflict(format string, args ...any) error {
	return &helperapi.Error{Kind: helperapi.KindConflict, Message: fmt.Sprintf(format, args...)}
}

package iface

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// routeProtocol marks the routes of the sensor; it is in no list of known ones
	// (rtnetlink(7), /etc/iproute2/rt_protos).
	routeProtocol netlink.RouteProtocol = 104
	// routeMetric is higher than what network managers use, so the host's own
	// routes win.
	routeMetric = 30000
	// forever as the kernel writes a lifetime without an end, in seconds.
	forever = 1<<32 - 1
)

// present is an address of the interface.
type present struct {
	prefix netip.Prefix
	// temporary is true when the kernel will remove it by itself.
	temporary bool
	entry     netlink.Addr
}

func addresses(l netlink.Link) ([]present, error) {
	found, err := netlinksafe.AddrList(l, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses of %s: %w", l.Attrs().Name, err)
	}
	var all []present
	for _, entry := range found {
		addr, ok := netip.AddrFromSlice(entry.IP)
		if !ok {
			continue
		}
		bits, _ := entry.Mask.Size()
		all = append(all, present{netip.PrefixFrom(addr.Unmap(), bits), entry.ValidLft > 0 && entry.ValidLft < forever, entry})
	}
	return all, nil
}

func toIPNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// place gives the interface an address for some time, or for good with 0, and
// the routes that belong to it.
func place(l netlink.Link, address netip.Prefix, gateway netip.Addr, lifetime time.Duration) error {
	name, seconds := l.Attrs().Name, int(lifetime/time.Second)
	entry := &netlink.Addr{IPNet: toIPNet(address), Flags: unix.IFA_F_NOPREFIXROUTE, ValidLft: seconds, PreferedLft: seconds}
	if err := netlink.AddrReplace(l, entry); err != nil {
		return fmt.Errorf("add address %v to %s: %w", address, name, err)
	}
	routes := []netlink.Route{{Dst: toIPNet(address.Masked()), Scope: netlink.SCOPE_LINK}}
	if gateway.IsValid() {
		anywhere := netip.PrefixFrom(unspecified(gateway), 0)
		routes = append(routes, netlink.Route{Dst: toIPNet(anywhere), Gw: gateway.AsSlice()})
	}
	for _, route := range routes {
		route.LinkIndex, route.Priority, route.Protocol = l.Attrs().Index, routeMetric, routeProtocol
		if address.Addr().Is4() {
			// The route ends with the address. (The kernel refuses that for an
			// IPv6 address that is still being checked for duplicates.)
			route.Src = address.Addr().AsSlice()
		} else {
			route.Scope = netlink.SCOPE_UNIVERSE
		}
		if err := netlink.RouteReplace(&route); err != nil {
			return fmt.Errorf("add route to %v at %s: %w", route.Dst, name, err)
		}
	}
	return nil
}

func unspecified(like netip.Addr) netip.Addr {
	if like.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// displace takes an address and the sensor's routes away. The kernel takes
// others of the same network along when theirs came later; those are put back.
func displace(l netlink.Link, address netip.Prefix) error {
	name := l.Attrs().Name
	if err := removeRoutes(l); err != nil {
		return err
	}
	before, err := addresses(l)
	if err != nil {
		return err
	}
	err = netlink.AddrDel(l, &netlink.Addr{IPNet: toIPNet(address)})
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("remove address %v from %s: %w", address, name, err)
	}
	return restoreAddresses(l, before, address)
}

// ownRoutes returns the sensor's routes at an interface: the gateway, if there is
// one, and the networks that are reached without.
func ownRoutes(l netlink.Link) (gateway netip.Addr, networks []netip.Prefix, err error) {
	mine := &netlink.Route{LinkIndex: l.Attrs().Index, Protocol: routeProtocol}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := netlinksafe.RouteListFiltered(family, mine, netlink.RT_FILTER_OIF|netlink.RT_FILTER_PROTOCOL)
		if err != nil {
			return netip.Addr{}, nil, fmt.Errorf("list routes of %s: %w", l.Attrs().Name, err)
		}
		for _, route := range routes {
			if via, ok := netip.AddrFromSlice(route.Gw); ok {
				gateway = via.Unmap()
				continue
			}
			if route.Dst == nil {
				continue
			}
			if addr, ok := netip.AddrFromSlice(route.Dst.IP); ok {
				bits, _ := route.Dst.Mask.Size()
				networks = append(networks, netip.PrefixFrom(addr.Unmap(), bits))
			}
		}
	}
	return gateway, networks, nil
}

func removeRoutes(l netlink.Link) error {
	mine := &netlink.Route{LinkIndex: l.Attrs().Index, Protocol: routeProtocol}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := netlinksafe.RouteListFiltered(family, mine, netlink.RT_FILTER_OIF|netlink.RT_FILTER_PROTOCOL)
		if err != nil {
			return fmt.Errorf("list routes of %s: %w", l.Attrs().Name, err)
		}
		for _, route := range routes {
			if err := netlink.RouteDel(&route); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("remove route to %v at %s: %w", route.Dst, l.Attrs().Name, err)
			}
		}
	}
	return nil
}

// restoreAddresses adds again what was there before and is not now, without the
// given one.
func restoreAddresses(l netlink.Link, before []present, without netip.Prefix) error {
	after, err := addresses(l)
	if err != nil {
		return err
	}
	has := map[netip.Prefix]bool{without: true}
	for _, address := range after {
		has[address.prefix] = true
	}
	for _, address := range before {
		if has[address.prefix] {
			continue
		}
		entry := address.entry
		if entry.Broadcast == nil {
			entry.Broadcast = net.IPv4zero // otherwise the library makes one up
		}
		entry.Flags &^= unix.IFA_F_PERMANENT | unix.IFA_F_SECONDARY | unix.IFA_F_TENTATIVE
		if err := netlink.AddrReplace(l, &entry); err != nil {
			return fmt.Errorf("restore address %v at %s: %w", address.prefix, l.Attrs().Name, err)
		}
	}
	return nil
}

// setMAC changes the hardware address. Cards that can do that only while they
// are down lose their routes and IPv6 addresses by it, which are put back.
func setMAC(l netlink.Link, mac net.HardwareAddr) error {
	name := l.Attrs().Name
	err := netlink.LinkSetHardwareAddr(l, mac)
	if err == nil || !errors.Is(err, unix.EBUSY) || l.Attrs().Flags&net.FlagUp == 0 {
		return wrapMAC(name, mac, err)
	}
	before, err := addresses(l)
	if err != nil {
		return err
	}
	routes, err := netlinksafe.RouteList(l, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list routes of %s: %w", name, err)
	}
	if err := netlink.LinkSetDown(l); err != nil {
		return fmt.Errorf("set %s down: %w", name, err)
	}
	setErr := wrapMAC(name, mac, netlink.LinkSetHardwareAddr(l, mac))
	if err := netlink.LinkSetUp(l); err != nil {
		return errors.Join(setErr, fmt.Errorf("set %s up: %w", name, err))
	}
	return errors.Join(setErr, restoreAddresses(l, before, netip.Prefix{}), restoreRoutes(routes))
}

func wrapMAC(name string, mac net.HardwareAddr, err error) error {
	if err != nil {
		return fmt.Errorf("set hardware address %s of %s: %w", mac, name, err)
	}
	return nil
}

// restoreRoutes goes twice over the routes: one through a gateway needs the one
// to the gateway first.
func restoreRoutes(routes []netlink.Route) error {
	for range 2 {
		var left []netlink.Route
		for _, route := range routes {
			route.Flags &^= unix.RTNH_F_LINKDOWN | unix.RTNH_F_DEAD
			if netlink.RouteReplace(&route) != nil {
				left = append(left, route)
			}
		}
		routes = left
	}
	if len(routes) > 0 {
		return fmt.Errorf("restore route to %v: refused by the kernel", routes[0].Dst)
	}
	return nil
}

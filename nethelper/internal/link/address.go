package link

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"honeysens.org/dockersensor/nethelper/internal/policy"
)

// Addresses returns the addresses of an interface with their networks.
func Addresses(l netlink.Link) ([]netip.Prefix, error) {
	found, err := netlinksafe.AddrList(l, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses of %s: %w", l.Attrs().Name, err)
	}
	prefixes := make([]netip.Prefix, 0, len(found))
	for _, address := range found {
		if prefix, ok := toPrefix(address.IPNet); ok {
			prefixes = append(prefixes, prefix)
		}
	}
	return prefixes, nil
}

func toPrefix(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	addr, ok := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(addr.Unmap(), bits), ok
}

func toIPNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// addAddress skips duplicate address detection: the bridge has no carrier until
// the first service is there, and the collector must listen before.
func addAddress(l netlink.Link, address netip.Prefix) error {
	entry := &netlink.Addr{IPNet: toIPNet(address)}
	if address.Addr().Is6() {
		entry.Flags = unix.IFA_F_NODAD
	}
	if err := netlink.AddrAdd(l, entry); err != nil {
		return fmt.Errorf("add address %v to %s: %w", address, l.Attrs().Name, err)
	}
	return nil
}

func delAddress(l netlink.Link, address netip.Prefix) error {
	if err := netlink.AddrDel(l, &netlink.Addr{IPNet: toIPNet(address)}); err != nil {
		return fmt.Errorf("remove address %v from %s: %w", address, l.Attrs().Name, err)
	}
	return nil
}

// Uses returns the networks of the host's addresses and routes, without those
// of the given bridge.
func Uses(without string) ([]policy.Use, error) {
	links, err := netlinksafe.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	names := map[int]string{}
	var uses []policy.Use
	for _, l := range links {
		name := l.Attrs().Name
		names[l.Attrs().Index] = name
		if name == without {
			continue
		}
		addresses, err := Addresses(l)
		if err != nil {
			return nil, err
		}
		for _, address := range addresses {
			uses = append(uses, policy.Use{Net: address.Masked(), Link: name, Direct: true})
		}
	}
	routes, err := netlinksafe.RouteList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	for _, route := range routes {
		network, ok := toPrefix(route.Dst)
		if name := names[route.LinkIndex]; ok && name != without {
			uses = append(uses, policy.Use{Net: network, Link: name})
		}
	}
	return uses, nil
}

package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"honeysens.org/dockersensor/shared/helperapi"
)

// routeProtocol marks the routes of the sensor, as in package iface.
const routeProtocol netlink.RouteProtocol = 104

// listAttempts bounds how often a list is asked for that changes meanwhile.
const listAttempts = 5

// unusable addresses are those that are not yet known to be of nobody else.
const unusable = unix.IFA_F_TENTATIVE | unix.IFA_F_DADFAILED

// way is what leads packets in at the interface, and answers out of it.
type way struct {
	iface, bridge netlink.Link
}

func findWay(iface, bridge string) (way, error) {
	outer, err := netlinksafe.LinkByName(iface)
	if err != nil {
		return way{}, fmt.Errorf("interface %s: %w", iface, err)
	}
	inner, err := netlinksafe.LinkByName(bridge)
	if err != nil {
		return way{}, fmt.Errorf("bridge %s: %w", bridge, err)
	}
	if len(outer.Attrs().HardwareAddr) != 6 {
		return way{}, &helperapi.Error{Kind: helperapi.KindConflict, Message: fmt.Sprintf("interface %s is no Ethernet: it cannot be probed", iface)}
	}
	return way{outer, inner}, nil
}

// family is that of an address.
func family(addr netip.Addr) int {
	if addr.Is4() {
		return netlink.FAMILY_V4
	}
	return netlink.FAMILY_V6
}

// target is the address of the interface that is connected to from a source.
func (w way) target(source netip.Addr) (netip.Addr, error) {
	name := w.iface.Attrs().Name
	found, err := netlinksafe.AddrList(w.iface, family(source))
	if err != nil {
		return netip.Addr{}, fmt.Errorf("list addresses of %s: %w", name, err)
	}
	for _, entry := range found {
		addr, ok := netip.AddrFromSlice(entry.IP)
		if addr = addr.Unmap(); ok && !addr.IsLinkLocalUnicast() && entry.Flags&unusable == 0 {
			return addr, nil
		}
	}
	return netip.Addr{}, &helperapi.Error{Kind: helperapi.KindConflict, Message: fmt.Sprintf("interface %s has no address that could be probed from %v", name, source)}
}

// open leads the flow in and its answers out. close is to be called whatever it
// returns.
func (w way) open(f flow) error {
	if err := netlink.RouteReplace(w.route(f.source)); err != nil {
		return fmt.Errorf("route to %v: %w", f.source, err)
	}
	if err := netlink.NeighSet(w.neighbour(f.source)); err != nil {
		return fmt.Errorf("neighbour %v: %w", f.source, err)
	}
	if err := netlink.QdiscReplace(w.hook()); err != nil {
		return unable("sch_ingress", err)
	}
	if err := netlink.FilterReplace(w.filter(f)); err != nil {
		return unable("cls_u32, act_mirred", err)
	}
	return nil
}

func unable(modules string, err error) error {
	return &helperapi.Error{Kind: helperapi.KindUnavailable, Message: fmt.Sprintf(
		"this kernel cannot hand packets to an interface (modules %s): %v", modules, err)}
}

func (w way) close(f flow) error {
	return errors.Join(
		unlessGone(netlink.QdiscDel(w.hook())),
		unlessGone(netlink.NeighDel(w.neighbour(f.source))),
		unlessGone(netlink.RouteDel(w.route(f.source))))
}

func unlessGone(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL) {
		return nil
	}
	return err
}

func (w way) route(to netip.Addr) *netlink.Route {
	return &netlink.Route{
		LinkIndex: w.iface.Attrs().Index, Protocol: routeProtocol, Scope: netlink.SCOPE_LINK,
		Dst: &net.IPNet{IP: to.AsSlice(), Mask: net.CIDRMask(to.BitLen(), to.BitLen())},
	}
}

// neighbour has the interface's own hardware address. In this state the kernel
// forgets it after a while.
func (w way) neighbour(addr netip.Addr) *netlink.Neigh {
	return &netlink.Neigh{
		LinkIndex: w.iface.Attrs().Index, Family: family(addr), State: netlink.NUD_REACHABLE,
		IP: addr.AsSlice(), HardwareAddr: w.iface.Attrs().HardwareAddr,
	}
}

// hook is where the filter hangs.
func (w way) hook() *netlink.Clsact {
	return &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: w.bridge.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}
}

// filter hands the flow to the interface. On its second way over the bridge, to
// the honeypot, its destination is another one.
func (w way) filter(f flow) *netlink.U32 {
	// The addresses stand one after the other.
	addresses := append(f.source.AsSlice(), f.target.AsSlice()...)
	var keys []netlink.TcU32Key
	for at := 0; at < len(addresses); at += 4 {
		keys = append(keys, netlink.TcU32Key{
			Mask: ^uint32(0), Val: binary.BigEndian.Uint32(addresses[at:]), Off: int32(f.addresses() + at), // #nosec G115 -- below 40
		})
	}
	return &netlink.U32{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: w.bridge.Attrs().Index, Parent: netlink.HANDLE_MIN_EGRESS, Priority: 1, Protocol: f.etherType(),
		},
		Sel: &netlink.TcU32Sel{Flags: netlink.TC_U32_TERMINAL, Keys: keys},
		Actions: []netlink.Action{&netlink.MirredAction{
			ActionAttrs:  netlink.ActionAttrs{Action: netlink.TC_ACT_STOLEN},
			MirredAction: netlink.TCA_INGRESS_REDIR, Ifindex: w.iface.Attrs().Index,
		}},
	}
}

// Cleanup removes the routes and neighbours that killed helpers have left, and
// returns what they were.
func Cleanup() ([]string, error) {
	var removed []string
	var errs []error
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := netlinksafe.RouteListFiltered(family, &netlink.Route{Protocol: routeProtocol}, netlink.RT_FILTER_PROTOCOL)
		if err != nil {
			errs = append(errs, fmt.Errorf("list routes of probes: %w", err))
		}
		for _, route := range routes {
			if route.Dst != nil && ofProbe(route.Dst.IP) {
				errs = append(errs, unlessGone(netlink.RouteDel(&route)))
				removed = append(removed, "route to "+route.Dst.String())
			}
		}
		neighbours, err := listNeighbours(family)
		if err != nil {
			errs = append(errs, fmt.Errorf("list neighbours of probes: %w", err))
		}
		for _, neighbour := range neighbours {
			if ofProbe(neighbour.IP) {
				errs = append(errs, unlessGone(netlink.NeighDel(&neighbour)))
				removed = append(removed, "neighbour "+neighbour.IP.String())
			}
		}
	}
	return removed, errors.Join(errs...)
}

// listNeighbours lists them all, again when they changed meanwhile.
func listNeighbours(family int) (found []netlink.Neigh, err error) {
	for range listAttempts {
		if found, err = netlink.NeighList(0, family); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return found, err
}

func ofProbe(ip net.IP) bool {
	addr, ok := netip.AddrFromSlice(ip)
	return ok && helperapi.IsProbe(addr.Unmap())
}

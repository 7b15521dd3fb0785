package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// FixNeighbour tells the host once and for all which hardware address is behind
// an address on the bridge, so that nobody there can tell it otherwise. The entry
// goes with the bridge, or with LoseNeighbour.
func FixNeighbour(bridge string, addr netip.Addr, mac net.HardwareAddr) error {
	entry, err := neighbour(bridge, addr)
	if err != nil {
		return fmt.Errorf("neighbour %s: %w", addr, err)
	}
	entry.State, entry.HardwareAddr = netlink.NUD_PERMANENT, mac
	if err := netlink.NeighSet(entry); err != nil {
		return fmt.Errorf("neighbour %s: %w", addr, err)
	}
	return nil
}

// LoseNeighbour removes what FixNeighbour has made. What is not there is not an
// error.
func LoseNeighbour(bridge string, addr netip.Addr) error {
	entry, err := neighbour(bridge, addr)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("neighbour %s: %w", addr, err)
	}
	if err := netlink.NeighDel(entry); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("neighbour %s: %w", addr, err)
	}
	return nil
}

func neighbour(bridge string, addr netip.Addr) (*netlink.Neigh, error) {
	br, err := netlinksafe.LinkByName(bridge)
	if err != nil {
		return nil, err
	}
	family := netlink.FAMILY_V4
	if addr.Is6() {
		family = netlink.FAMILY_V6
	}
	return &netlink.Neigh{LinkIndex: br.Attrs().Index, Family: family, IP: addr.AsSlice()}, nil
}

package iface

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/vishvananda/netlink"

	"honeysens.org/dockersensor/nethelper/internal/link"
	"honeysens.org/dockersensor/shared/helperapi"
)

// faults are sentences about what is wrong, or "".
type faults struct {
	// link: it is missing, down or without a carrier.
	link string
	// address: it has none that is of use.
	address string
	// difference: it is not as wanted.
	difference string
}

// observe reads the interface as it is, in the network namespace of the calling
// thread, and compares it with the wanted state, if there is one. A missing
// interface is a fault, not an error.
func observe(name string, want *helperapi.Interface) (helperapi.InterfaceObserved, faults, error) {
	seen := helperapi.InterfaceObserved{Name: name, Addresses: []netip.Prefix{}}
	found, err := netlinksafe.LinkByName(name)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return seen, faults{link: link.MissingText(name)}, nil
	}
	if err != nil {
		return seen, faults{}, fmt.Errorf("observe %s: %w", name, err)
	}
	attrs := found.Attrs()
	seen.Up = attrs.Flags&net.FlagUp != 0
	seen.MAC = attrs.HardwareAddr.String()
	if seen.Addresses, err = link.Addresses(found); err != nil {
		return seen, faults{}, fmt.Errorf("observe %s: %w", name, err)
	}
	wrong := faults{link: linkFault(seen, attrs.OperState)}
	if !hasUsableAddress(seen.Addresses) {
		wrong.address = fmt.Sprintf("interface %s has no address that attackers could reach", name)
	}
	if want != nil {
		wrong.difference = difference(seen, want)
	}
	return seen, wrong, nil
}

func linkFault(seen helperapi.InterfaceObserved, state netlink.LinkOperState) string {
	switch {
	case !seen.Up:
		return fmt.Sprintf("interface %s is down", seen.Name)
	case state == netlink.OperDown || state == netlink.OperLowerLayerDown:
		return fmt.Sprintf("interface %s has no carrier", seen.Name)
	}
	return ""
}

// hasUsableAddress: what comes from link-local IPv6 addresses is not redirected.
func hasUsableAddress(addresses []netip.Prefix) bool {
	for _, address := range addresses {
		if !address.Addr().Is6() || !address.Addr().IsLinkLocalUnicast() {
			return true
		}
	}
	return false
}

func difference(seen helperapi.InterfaceObserved, want *helperapi.Interface) string {
	if mac, err := net.ParseMAC(want.MAC); err == nil && mac.String() != seen.MAC {
		return fmt.Sprintf("interface %s has the hardware address %s, not %s as set at the server", seen.Name, seen.MAC, mac)
	}
	if want.Mode == helperapi.ModeStatic && !slices.Contains(seen.Addresses, want.Address) {
		return fmt.Sprintf("interface %s does not have the address %v that is set at the server", seen.Name, want.Address)
	}
	return ""
}

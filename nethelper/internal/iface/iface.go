// Package iface observes the sensor's interface and says what keeps it from
// being of use, or what differs from the wanted state. The interface itself
// stays as the host has configured it.
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

// Observe reads the interface as it is, in the network namespace of the calling
// thread, and compares it with the wanted state, if there is one. A missing
// interface is a Problem, not an error.
func Observe(name string, want *helperapi.Interface) (helperapi.InterfaceObserved, error) {
	seen := helperapi.InterfaceObserved{Name: name, Addresses: []netip.Prefix{}}
	found, err := netlinksafe.LinkByName(name)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		seen.Problem = link.MissingText(name)
		return seen, nil
	}
	if err != nil {
		return seen, fmt.Errorf("observe %s: %w", name, err)
	}
	attrs := found.Attrs()
	seen.Up = attrs.Flags&net.FlagUp != 0
	seen.MAC = attrs.HardwareAddr.String()
	if seen.Addresses, err = link.Addresses(found); err != nil {
		return seen, fmt.Errorf("observe %s: %w", name, err)
	}
	seen.Problem = problem(seen, attrs.OperState)
	if seen.Problem == "" && want != nil {
		seen.Problem = difference(seen, want)
	}
	return seen, nil
}

func problem(seen helperapi.InterfaceObserved, state netlink.LinkOperState) string {
	switch {
	case !seen.Up:
		return fmt.Sprintf("interface %s is down", seen.Name)
	case state == netlink.OperDown || state == netlink.OperLowerLayerDown:
		return fmt.Sprintf("interface %s has no carrier", seen.Name)
	case !hasUsableAddress(seen.Addresses):
		return fmt.Sprintf("interface %s has no address that attackers could reach", seen.Name)
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
		return fmt.Sprintf("interface %s does not have the address %v that is set at the server; configure it on the host", seen.Name, want.Address)
	}
	return ""
}

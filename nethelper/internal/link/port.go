package link

import (
	"errors"
	"fmt"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/vishvananda/netlink"
)

// Ports returns the names of the veth interfaces that are ports of a bridge. A
// missing bridge has none.
func Ports(bridge string) ([]string, error) {
	br, err := netlinksafe.LinkByName(bridge)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("ports of %s: %w", bridge, err)
	}
	links, err := netlinksafe.LinkList()
	if err != nil {
		return nil, fmt.Errorf("ports of %s: %w", bridge, err)
	}
	var ports []string
	for _, l := range links {
		if l.Attrs().MasterIndex == br.Attrs().Index && l.Type() == "veth" {
			ports = append(ports, l.Attrs().Name)
		}
	}
	return ports, nil
}

// RemovePorts removes all veth pairs of a bridge.
func RemovePorts(bridge string) error {
	ports, err := Ports(bridge)
	if err != nil {
		return err
	}
	var errs []error
	for _, port := range ports {
		errs = append(errs, RemovePort(port))
	}
	return errors.Join(errs...)
}

// RemovePort removes a veth pair by its end on the host. A missing one is not
// an error.
func RemovePort(name string) error {
	port, err := netlinksafe.LinkByName(name)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	if port.Type() != "veth" {
		return fmt.Errorf("remove %s: it is a %s, not a veth", name, port.Type())
	}
	if err := netlink.LinkDel(port); err != nil && !errors.As(err, &missing) {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}

// EnsurePort makes a veth a port of the bridge that cannot reach other ports,
// again: somebody may have removed the bridge in between.
func EnsurePort(name, bridge string) error {
	br, err := netlinksafe.LinkByName(bridge)
	if err != nil {
		return fmt.Errorf("port %s: %w", name, err)
	}
	port, err := netlinksafe.LinkByName(name)
	if err != nil {
		return fmt.Errorf("port %s: %w", name, err)
	}
	if port.Attrs().MasterIndex != br.Attrs().Index {
		if err := netlink.LinkSetMaster(port, br); err != nil {
			return fmt.Errorf("port %s: join %s: %w", name, bridge, err)
		}
	}
	if err := netlink.LinkSetIsolated(port, true); err != nil {
		return fmt.Errorf("port %s: isolate: %w", name, err)
	}
	if err := netlink.LinkSetUp(port); err != nil {
		return fmt.Errorf("port %s: set up: %w", name, err)
	}
	return nil
}

// LeadsTo tells whether the other end of a veth is in the given network
// namespace. A missing veth leads nowhere.
func LeadsTo(name string, nsFd int) (bool, error) {
	port, err := netlinksafe.LinkByName(name)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("port %s: %w", name, err)
	}
	id, err := netlink.GetNetNsIdByFd(nsFd)
	if err != nil {
		return false, fmt.Errorf("port %s: id of namespace: %w", name, err)
	}
	return port.Type() == "veth" && id >= 0 && port.Attrs().NetNsID == id, nil
}

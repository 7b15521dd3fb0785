package link

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/vishvananda/netlink"

	"honeysens.org/dockersensor/cni/checksum"
	"honeysens.org/dockersensor/shared/helperapi"
)

// Bridge makes, heals and removes the bridge of one sensor.
type Bridge struct {
	name, sensor, iface string
	// kept is the note of what was before, for when somebody else removes the
	// bridge that has it.
	kept *record
	// oldKernel is for tests: act as if force_forwarding did not exist.
	oldKernel bool
}

// New returns the bridge of a sensor, which sits behind iface. It changes
// nothing yet.
func New(sensorID, iface string) *Bridge {
	return &Bridge{name: BridgeName(sensorID), sensor: sensorID[:sensorIDLen], iface: iface}
}

// Name returns the name of the bridge.
func (b *Bridge) Name() string { return b.name }

// Ensure makes the bridge as laid out, or brings it there, and lets packets
// pass to and from the interface. It is idempotent. A missing interface and a
// foreign bridge of that name are errors of KindConflict.
func (b *Bridge) Ensure(want Layout) (Forwarding, error) {
	outer, err := outerInterface(b.iface)
	if err != nil {
		return Forwarding{}, err
	}
	note, br, err := b.obtain()
	if err != nil {
		return Forwarding{}, fmt.Errorf("bridge %s: %w", b.name, err)
	}
	if err := shape(br, want, outer.Attrs().MTU); err != nil {
		return Forwarding{}, fmt.Errorf("bridge %s: %w", b.name, err)
	}
	if err := b.forward(note); err != nil {
		return Forwarding{}, err
	}
	standing, err := note.standing()
	if err != nil {
		return Forwarding{}, fmt.Errorf("bridge %s: %w", b.name, err)
	}
	return standing, nil
}

// obtain returns the bridge, made if need be, and its note.
func (b *Bridge) obtain() (record, netlink.Link, error) {
	existing, err := netlinksafe.LinkByName(b.name)
	var missing netlink.LinkNotFoundError
	switch {
	case errors.As(err, &missing):
		existing = nil
	case err != nil:
		return record{}, nil, err
	default:
		note, ours := parseRecord(existing.Attrs().Alias)
		ours = ours && note.sensor == b.sensor
		if existing.Type() != "bridge" || (!ours && existing.Attrs().Alias != "") {
			return record{}, nil, conflict("%s exists and is not of this sensor", b.name)
		}
		if ours && note.iface == b.iface {
			b.kept = &note
			return note, existing, nil
		}
		if ours {
			// The sensor was started for another interface: that one gets back
			// what it had.
			if err := b.release(note); err != nil {
				return record{}, nil, err
			}
		}
	}
	return b.create(existing)
}

// create makes the bridge unless a killed helper left it without a note, and
// writes the note before anything else is changed.
func (b *Bridge) create(existing netlink.Link) (record, netlink.Link, error) {
	others, err := b.others()
	if err != nil {
		return record{}, nil, err
	}
	if b.kept == nil || b.kept.iface != b.iface {
		note, err := b.observe(others)
		if err != nil {
			return record{}, nil, err
		}
		b.kept = &note
	}
	if existing == nil {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = b.name
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
			return record{}, nil, fmt.Errorf("add: %w", err)
		}
	}
	br, err := netlinksafe.LinkByName(b.name)
	if err != nil {
		return record{}, nil, err
	}
	if err := netlink.LinkSetAlias(br, b.kept.String()); err != nil {
		return record{}, nil, fmt.Errorf("set alias: %w", err)
	}
	return *b.kept, br, nil
}

// shape gives the bridge its properties and exactly its addresses.
func shape(br netlink.Link, want Layout, mtu int) error {
	if br.Attrs().HardwareAddr.String() != want.MAC.String() {
		if err := netlink.LinkSetHardwareAddr(br, want.MAC); err != nil {
			return fmt.Errorf("set hardware address: %w", err)
		}
	}
	if br.Attrs().MTU != mtu {
		if err := netlink.LinkSetMTU(br, mtu); err != nil {
			return fmt.Errorf("set MTU: %w", err)
		}
	}
	// Snooping needs a querier, else multicast, neighbour discovery among it,
	// stops after some minutes.
	snooping := false
	if err := netlink.LinkModify(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: want.Name, Index: br.Attrs().Index}, MulticastSnooping: &snooping}); err != nil {
		return fmt.Errorf("switch multicast snooping off: %w", err)
	}
	if err := checksum.Off(want.Name); err != nil {
		return err
	}
	if err := tame(want.Name); err != nil {
		return err
	}
	if err := setAddresses(br, want); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(br); err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	return nil
}

// tame makes the bridge take nothing from services that changes the host: no
// redirects, router advertisements or addresses, nor senders from elsewhere.
func tame(bridge string) error {
	values := []struct{ family, key, value string }{
		{ipv4, "rp_filter", "1"}, {ipv4, "accept_redirects", "0"}, {ipv4, "send_redirects", "0"},
		{ipv4, "accept_source_route", "0"}, {ipv4, "arp_ignore", "1"},
		{ipv6, "disable_ipv6", "0"}, {ipv6, "accept_ra", "0"}, {ipv6, "autoconf", "0"}, {ipv6, "accept_redirects", "0"},
		{ipv6, "accept_dad", "0"},
	}
	for _, v := range values {
		if v.family == ipv6 && !hasSysctl(ipv6, bridge, v.key) {
			continue
		}
		if err := writeSysctl(v.family, bridge, v.key, v.value); err != nil {
			return err
		}
	}
	return nil
}

func setAddresses(br netlink.Link, want Layout) error {
	wanted := []netip.Prefix{netip.PrefixFrom(want.GatewayV4, want.V4.Bits())}
	if want.V6.IsValid() {
		wanted = append(wanted, netip.PrefixFrom(want.GatewayV6, want.V6.Bits()))
	}
	present, err := Addresses(br)
	if err != nil {
		return err
	}
	missing := map[netip.Prefix]bool{}
	for _, address := range wanted {
		missing[address] = true
	}
	for _, address := range present {
		if missing[address] {
			delete(missing, address)
			continue
		}
		if address.Addr().Is6() && address.Addr().IsLinkLocalUnicast() {
			continue
		}
		if err := delAddress(br, address); err != nil {
			return err
		}
	}
	for address := range missing {
		if err := addAddress(br, address); err != nil {
			return err
		}
	}
	return nil
}

// Remove takes the bridge away and brings the interface back to what it was
// before. What is not there is not an error.
func (b *Bridge) Remove() error {
	br, err := netlinksafe.LinkByName(b.name)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		if b.kept == nil {
			return nil
		}
		return b.release(*b.kept)
	}
	if err != nil {
		return fmt.Errorf("remove bridge %s: %w", b.name, err)
	}
	note, ours := parseRecord(br.Attrs().Alias)
	ours = ours && note.sensor == b.sensor
	if !ours && b.kept == nil {
		return nil
	}
	if !ours {
		note = *b.kept
	}
	if err := b.release(note); err != nil {
		return err
	}
	if !ours && br.Attrs().Alias != "" {
		return nil
	}
	if err := netlink.LinkDel(br); err != nil {
		return fmt.Errorf("remove bridge %s: %w", b.name, err)
	}
	return nil
}

// release gives the host's switches back.
func (b *Bridge) release(note record) error {
	others, err := b.others()
	if err != nil {
		return fmt.Errorf("restore forwarding of %s: %w", note.iface, err)
	}
	if err := note.restore(others); err != nil {
		return fmt.Errorf("restore forwarding of %s: %w", note.iface, err)
	}
	b.kept = nil
	return nil
}

// others returns the notes of the bridges of other sensors.
func (b *Bridge) others() ([]record, error) {
	all, err := records()
	if err != nil {
		return nil, err
	}
	var others []record
	for _, r := range all {
		if r.sensor != b.sensor {
			others = append(others, r)
		}
	}
	return others, nil
}

// outerInterface returns the interface that attackers arrive at.
func outerInterface(name string) (netlink.Link, error) {
	found, err := netlinksafe.LinkByName(name)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return nil, conflict("%s", MissingText(name))
	}
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", name, err)
	}
	return found, nil
}

// MissingText says that an interface does not exist, and which ones do.
func MissingText(name string) string {
	text := fmt.Sprintf("interface %s does not exist in this network namespace", name)
	links, err := netlinksafe.LinkList()
	if err != nil {
		return text
	}
	var names []string
	for _, l := range links {
		attrs := l.Attrs()
		// The host's ends of containers are no places to listen at.
		internal := attrs.MasterIndex != 0 || attrs.Name == "lo" || strings.HasPrefix(attrs.Alias, aliasPrefix)
		if !internal {
			names = append(names, attrs.Name)
		}
		if len(names) == maxNamed {
			break
		}
	}
	if len(names) == 0 {
		return text
	}
	return text + "; set IFACE to one of: " + strings.Join(names, ", ")
}

// maxNamed bounds the list in a message: a host with containers has hundreds.
const maxNamed = 12

func conflict(format string, args ...any) error {
	return &helperapi.Error{Kind: helperapi.KindConflict, Message: fmt.Sprintf(format, args...)}
}

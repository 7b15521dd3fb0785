package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"honeysens.org/dockersensor/shared/helperapi"
)

// Modes of the section network.
const (
	networkDHCP   = 0
	networkStatic = 1
	networkLeave  = 2
)

func (a *Archive) parseNetwork(s *Settings) error {
	mode, err := a.mode("network", networkLeave)
	if err != nil {
		return err
	}
	i := &s.Interface
	switch mode {
	case networkLeave:
		i.Mode = helperapi.ModeNone
		return nil
	case networkDHCP:
		i.Mode, i.Hostname = helperapi.ModeDHCP, a.text("network", "dhcp_hostname")
	case networkStatic:
		i.Mode = helperapi.ModeStatic
		if err := a.parseStatic(i); err != nil {
			return err
		}
	}
	if err := check(*i); err != nil {
		return fmt.Errorf("section network: %w; %s", err, remedy)
	}
	return nil
}

func (a *Archive) parseStatic(i *helperapi.Interface) error {
	var errs [3]error
	i.Address, errs[0] = a.address()
	if text := a.text("network", "gateway"); text != "" {
		if i.Gateway, errs[1] = netip.ParseAddr(text); errs[1] != nil {
			errs[1] = wrong("network", "gateway", text, "an IP address or nothing")
		}
	}
	text := a.text("network", "dns")
	for _, field := range strings.FieldsFunc(text, func(r rune) bool { return isSpace(r) || r == ',' || r == ';' }) {
		server, err := netip.ParseAddr(field)
		if err != nil {
			errs[2] = wrong("network", "dns", text, "IP addresses or nothing")
			break
		}
		i.DNS = append(i.DNS, server)
	}
	return errors.Join(errs[:]...)
}

// address is the static address with its network's length.
func (a *Archive) address() (netip.Prefix, error) {
	text, err := a.need("network", "address")
	if err != nil {
		return netip.Prefix{}, err
	}
	addr, err := netip.ParseAddr(text)
	if err != nil || addr.Zone() != "" {
		return netip.Prefix{}, wrong("network", "address", text, "an IP address")
	}
	mask, err := a.need("network", "netmask")
	if err != nil {
		return netip.Prefix{}, err
	}
	bits, ok := maskBits(mask, addr)
	if !ok {
		return netip.Prefix{}, wrong("network", "netmask", mask, "a mask such as 255.255.255.0, or the length of the network")
	}
	return netip.PrefixFrom(addr, bits), nil
}

// maskBits reads a mask of the address' family, or a number.
func maskBits(text string, addr netip.Addr) (int, bool) {
	if bits, err := strconv.Atoi(strings.TrimPrefix(text, "/")); err == nil {
		return bits, bits >= 1 && bits <= addr.BitLen()
	}
	mask, err := netip.ParseAddr(text)
	if err != nil || mask.BitLen() != addr.BitLen() || mask.Zone() != "" {
		return 0, false
	}
	// Size is 0, 0 for a mask with holes.
	ones, size := net.IPMask(mask.AsSlice()).Size()
	return ones, size != 0 && ones > 0
}

func (a *Archive) parseMAC(s *Settings) error {
	mode, err := a.mode("mac", 1)
	if err != nil || mode == 0 {
		return err
	}
	text, err := a.need("mac", "address")
	if err != nil {
		return err
	}
	mac, err := net.ParseMAC(text)
	if err != nil {
		return wrong("mac", "address", text, "a hardware address such as 02:11:22:33:44:55")
	}
	if err := check(helperapi.Interface{Mode: helperapi.ModeNone, MAC: mac.String()}); err != nil {
		return wrong("mac", "address", text, "the hardware address of one card")
	}
	s.Interface.MAC = mac.String()
	return nil
}

// check asks what the helper would ask, before the helper does: what it would
// refuse must never get into the archive.
func check(i helperapi.Interface) error {
	i.Name = "eth0"
	probe := helperapi.Network{
		Interface: i,
		Bridge:    helperapi.Bridge{V4: netip.MustParsePrefix(defaultServiceNetwork), CollectorPort: 1},
		Egress:    helperapi.EgressDeny,
	}
	return probe.Validate()
}

package helperapi

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
)

// DecodeNetwork reads a Network strictly: unknown fields and trailing data are
// errors, and what it says must be possible. Its errors are of KindInvalid.
func DecodeNetwork(body []byte) (Network, error) {
	var n Network
	if len(body) > MaxBody {
		return n, invalid("more than %d bytes", MaxBody)
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&n); err != nil {
		return Network{}, invalid("decode network: %v", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Network{}, invalid("data after the network")
	}
	if err := n.Validate(); err != nil {
		return Network{}, err
	}
	return n, nil
}

// Validate tells whether the state is possible at all, wherever it is wanted.
// Its errors are of KindInvalid.
func (n *Network) Validate() error {
	if err := n.Interface.Validate(); err != nil {
		return err
	}
	if err := n.Bridge.validate(); err != nil {
		return err
	}
	switch n.Egress {
	case EgressDeny, EgressInternet, EgressAll:
	default:
		return invalid("egress %.20q: want deny, internet or all", n.Egress)
	}
	if len(n.ProtectedPorts) > MaxPorts {
		return invalid("%d protected ports: at most %d", len(n.ProtectedPorts), MaxPorts)
	}
	for _, port := range n.ProtectedPorts {
		if err := port.validate(); err != nil {
			return fmt.Errorf("protected port: %w", err)
		}
	}
	return validateServices(n.Services)
}

// Validate tells whether an interface can be like that at all. Its errors are of
// KindInvalid.
func (i *Interface) Validate() error {
	if !ValidInterfaceName(i.Name) {
		return invalid("interface name %.20q", i.Name)
	}
	if i.MAC != "" {
		mac, err := net.ParseMAC(i.MAC)
		if err != nil || len(mac) != 6 || mac[0]&1 != 0 || bytes.Equal(mac, make([]byte, 6)) {
			return invalid("interface %s: %.20q is not the hardware address of one card", i.Name, i.MAC)
		}
	}
	if len(i.DNS) > 3 {
		return invalid("interface %s: %d name servers: at most 3", i.Name, len(i.DNS))
	}
	for _, server := range i.DNS {
		if !server.IsValid() || server.IsUnspecified() || server.IsMulticast() || server.Zone() != "" {
			return invalid("interface %s: name server %v", i.Name, server)
		}
	}
	if i.Hostname != "" && !validHostname(i.Hostname) {
		return invalid("interface %s: host name %.70q", i.Name, i.Hostname)
	}
	if i.EAPOL != nil {
		if err := i.EAPOL.validate(i.Name); err != nil {
			return err
		}
	}
	switch i.Mode {
	case ModeDHCP, ModeNone:
		return nil
	case ModeStatic:
		return i.validateStatic()
	}
	return invalid("interface %s: mode %.20q: want dhcp, static or none", i.Name, i.Mode)
}

func (i *Interface) validateStatic() error {
	if !usableHost(i.Address) {
		return invalid("interface %s: %v is not the address of a host", i.Name, i.Address)
	}
	gateway := i.Gateway
	if !gateway.IsValid() {
		return nil
	}
	onLink := i.Address.Masked().Contains(gateway) || (gateway.Is6() && gateway.IsLinkLocalUnicast())
	if gateway == i.Address.Addr() || gateway.Zone() != "" || !onLink {
		return invalid("interface %s: gateway %v cannot be reached from %v", i.Name, gateway, i.Address)
	}
	return nil
}

// usableHost tells whether an interface can have the address: neither the
// network itself nor its broadcast address, nor of a special range.
func usableHost(p netip.Prefix) bool {
	addr := p.Addr()
	if !p.IsValid() || p.Bits() == 0 || addr.Is4In6() || addr.Zone() != "" || addr.IsUnspecified() || addr.IsMulticast() || addr.IsLoopback() {
		return false
	}
	if !addr.Is4() {
		return true
	}
	if first := addr.As4()[0]; first == 0 || first >= 240 {
		return false
	}
	return p.Bits() > 30 || (addr != p.Masked().Addr() && addr != lastAddr(p))
}

// lastAddr returns the broadcast address of an IPv4 network.
func lastAddr(p netip.Prefix) netip.Addr {
	raw := p.Masked().Addr().As4()
	last := binary.BigEndian.Uint32(raw[:]) | ^uint32(0)>>p.Bits()
	binary.BigEndian.PutUint32(raw[:], last)
	return netip.AddrFrom4(raw)
}

func (b *Bridge) validate() error {
	if !b.V4.IsValid() || !b.V4.Addr().Is4() || b.V4 != b.V4.Masked() {
		return invalid("service network %v: want an IPv4 network such as 10.10.10.0/24", b.V4)
	}
	if v6 := b.V6; v6 != (netip.Prefix{}) && (!v6.IsValid() || !v6.Addr().Is6() || v6.Addr().Is4In6() || v6 != v6.Masked()) {
		return invalid("service network %v: want an IPv6 network such as fd00:1234:5678::/64", v6)
	}
	if b.CollectorPort == 0 {
		return invalid("collector port 0")
	}
	return nil
}

func validateServices(services []Service) error {
	if len(services) > MaxServices {
		return invalid("%d services: at most %d", len(services), MaxServices)
	}
	var total, catchAlls int
	ids, containers, pids := map[string]bool{}, map[string]bool{}, map[int]bool{}
	ports := map[Port]string{}
	for _, s := range services {
		if err := s.validate(); err != nil {
			return err
		}
		if ids[s.ID] || containers[s.Sandbox.ContainerID] || pids[s.Sandbox.PID] {
			return invalid("service %s: its id or its sandbox is that of another service", s.ID)
		}
		ids[s.ID], containers[s.Sandbox.ContainerID], pids[s.Sandbox.PID] = true, true, true
		if total += len(s.Ports); total > MaxPorts {
			return invalid("more than %d port assignments", MaxPorts)
		}
		for _, a := range s.Ports {
			if other, taken := ports[a.Port]; taken {
				return invalid("service %s: port %s is assigned to service %s already", s.ID, a.Port, other)
			}
			ports[a.Port] = s.ID
		}
		if s.CatchAll {
			catchAlls++
		}
	}
	if catchAlls > 1 {
		return invalid("%d services want to be the catch-all: one at most can", catchAlls)
	}
	return nil
}

func (s *Service) validate() error {
	if !validID(s.ID) {
		return invalid("service id %.70q: want 1 to 64 of a-z, A-Z, 0-9, _ and -", s.ID)
	}
	if !ValidContainerID(s.Sandbox.ContainerID) {
		return invalid("service %s: container id %.70q: want 64 of 0-9 and a-f", s.ID, s.Sandbox.ContainerID)
	}
	if s.Sandbox.PID <= 1 || s.Sandbox.PID > maxPID {
		return invalid("service %s: pid %d", s.ID, s.Sandbox.PID)
	}
	for _, a := range s.Ports {
		if err := a.Port.validate(); err != nil {
			return fmt.Errorf("service %s: %w", s.ID, err)
		}
		if a.To == 0 {
			return invalid("service %s: port %s leads to port 0", s.ID, a.Port)
		}
	}
	return nil
}

// maxPID is the kernel's own limit (PID_MAX_LIMIT on 64-bit machines).
const maxPID = 1 << 22

func (p Port) validate() error {
	if (p.Protocol != TCP && p.Protocol != UDP) || p.Number == 0 {
		return invalid("port %.20q: want 1 to 65535 with tcp or udp", p)
	}
	return nil
}

// String returns the port as in 22/tcp.
func (p Port) String() string { return fmt.Sprintf("%d/%s", p.Number, p.Protocol) }

// ValidInterfaceName tells whether a Linux interface can have the name, and
// whether it is safe as one part of a path (dev_valid_name in the kernel).
func ValidInterfaceName(name string) bool {
	if name == "" || len(name) > 15 || name == "." || name == ".." || name == "all" || name == "default" {
		return false
	}
	return !strings.ContainsFunc(name, func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune(`/:%"\`, r)
	})
}

// ValidContainerID tells whether text is a full container id.
func ValidContainerID(text string) bool {
	return len(text) == 64 && !strings.ContainsFunc(text, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'f')
	})
}

func validID(text string) bool {
	return text != "" && len(text) <= 64 && !strings.ContainsFunc(text, func(r rune) bool { return !letterOrDigit(r) && r != '_' && r != '-' })
}

// validHostname follows RFC 1123: labels of letters, digits and inner hyphens.
func validHostname(text string) bool {
	if len(text) > 253 {
		return false
	}
	for label := range strings.SplitSeq(text, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		if strings.ContainsFunc(label, func(r rune) bool { return !letterOrDigit(r) && r != '-' }) {
			return false
		}
	}
	return true
}

func letterOrDigit(r rune) bool {
	return (r >= '0' && r <= '9') || (r >= 'a' && r <= 'z') || (r >= 'A' && r <= 'Z')
}

func invalid(format string, args ...any) error {
	return &Error{Kind: KindInvalid, Message: fmt.Sprintf(format, args...)}
}

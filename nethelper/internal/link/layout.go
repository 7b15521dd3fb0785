package link

import (
	"crypto/sha256"
	"net"
	"net/netip"

	"honeysens.org/dockersensor/shared/helperapi"
)

// Lengths of the parts of a container id that names are made of. An interface
// name has room for 15 characters.
const (
	bridgeIDLen = 6
	sensorIDLen = 12
)

// Layout is what the bridge should be. It follows from the sensor's container
// id and the wanted networks alone.
type Layout struct {
	Name      string
	MAC       net.HardwareAddr
	V4, V6    netip.Prefix
	GatewayV4 netip.Addr
	GatewayV6 netip.Addr
}

// BridgeName returns the name of a sensor's bridge.
func BridgeName(sensorID string) string { return "services-" + sensorID[:bridgeIDLen] }

// NewLayout lays the bridge of a sensor out. Without a wanted IPv6 network the
// sensor gets a unique local one of its own (RFC 4193, with the hash of the
// container id in place of a random global id).
//
// On a kernel without IPv6 (see HasIPv6) V6 is to be left out with WithoutIPv6.
func NewLayout(sensorID string, want helperapi.Bridge) Layout {
	hash := sha256.Sum256([]byte(sensorID))
	v6 := want.V6
	if !v6.IsValid() {
		raw := [16]byte{0xfd}
		copy(raw[1:6], hash[:])
		v6 = netip.PrefixFrom(netip.AddrFrom16(raw), 64)
	}
	return Layout{
		Name: BridgeName(sensorID),
		// A fixed address: otherwise the bridge takes the lowest of its ports and
		// services lose their neighbour whenever one comes or goes. 02 is of the
		// locally administered ones.
		MAC: append(net.HardwareAddr{0x02}, hash[5:10]...),
		V4:  want.V4, GatewayV4: want.V4.Addr().Next(),
		V6: v6, GatewayV6: v6.Addr().Next(),
	}
}

// WithoutIPv6 returns the layout with IPv4 only.
func (l Layout) WithoutIPv6() Layout {
	l.V6, l.GatewayV6 = netip.Prefix{}, netip.Addr{}
	return l
}

// HasIPv6 tells whether the kernel has IPv6 (it can be started without).
func HasIPv6() bool { return hasSysctl(ipv6, "all", "disable_ipv6") }

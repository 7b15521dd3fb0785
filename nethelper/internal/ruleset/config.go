package ruleset

import (
	"net"
	"net/netip"
	"time"

	"honeysens.org/dockersensor/shared/helperapi"
)

// Config is the wanted state of one sensor, as far as it concerns packets.
type Config struct {
	// SensorID is the container id of the sensor: 12 to 64 lower-case hex digits.
	SensorID string
	// Iface is the interface that attackers arrive at.
	Iface string
	// Bridge is the interface of the services bridge.
	Bridge string
	// V4 and V6 are the networks on the bridge. V6 may be unset.
	V4, V6 netip.Prefix
	// GatewayV4 and GatewayV6 are the bridge's own addresses in them.
	GatewayV4, GatewayV6 netip.Addr
	// CollectorPort is the one TCP port of the gateway that services reach.
	CollectorPort uint16
	HostPorts     helperapi.HostPorts
	Egress        helperapi.Egress
	// Protected ports are never redirected.
	Protected []helperapi.Port
	Services  []Service
	// ForwardingWasOffV4 and V6 tell that the host did not forward what arrives
	// at Iface before the sensor came. Then nothing is forwarded from there but
	// what belongs to services, or what somebody else has translated.
	ForwardingWasOffV4, ForwardingWasOffV6 bool
	// ForwardingAllV6 tells that IPv6 forwarding had to be switched on for all
	// interfaces. When it was off before, none of them may gain by it.
	ForwardingAllV6 bool
	// TTL and HopLimit are what the host gives its own packets; 0 means 64.
	TTL, HopLimit uint8
	// Bounds are what each service may cost the host.
	Bounds Bounds
	// Lacks is what the kernel cannot do; the rules do without.
	Lacks Lacks
	// Heartbeat is how long redirection lasts without a sign of life of the
	// helper; 0 means DefaultHeartbeat.
	Heartbeat time.Duration
}

// DefaultHeartbeat is how long redirection outlives the helper.
const DefaultHeartbeat = time.Minute

// defaultHops is what Linux gives its packets.
const defaultHops = 64

// Service is a honeypot on the bridge.
type Service struct {
	ID string
	// V4 and V6 are its addresses. At least one is set.
	V4, V6 netip.Addr
	// Port is the port of the bridge that it is behind, and MAC the hardware
	// address that it was given there. Without a port nothing is said about
	// what arrives by it.
	Port  string
	MAC   net.HardwareAddr
	Ports []helperapi.Assignment
	// CatchAll leads everything else to it. At most one service has it.
	CatchAll bool
}

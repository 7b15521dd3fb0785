package helperapi

import "net/netip"

// Network is the whole wanted state of the sensor's network.
type Network struct {
	Interface Interface `json:"interface"`
	Bridge    Bridge    `json:"bridge"`
	Services  []Service `json:"services"`
	Egress    Egress    `json:"egress"`
	// ProtectedPorts never reach a service, in addition to those that the
	// helper was started with.
	ProtectedPorts []Port `json:"protected_ports,omitempty"`
}

// Interface is the one that attackers arrive at, and how it gets its address.
type Interface struct {
	Name string        `json:"name"`
	Mode InterfaceMode `json:"mode"`
	// Address, Gateway and DNS are for ModeStatic; Gateway and DNS may be unset.
	Address netip.Prefix `json:"address,omitzero"`
	Gateway netip.Addr   `json:"gateway,omitzero"`
	DNS     []netip.Addr `json:"dns,omitempty"`
	// Hostname is the DHCP host name option of ModeDHCP, or "".
	Hostname string `json:"hostname,omitempty"`
	// MAC is the hardware address to use, or "" for the card's own.
	MAC string `json:"mac,omitempty"`
	// EAPOL is unset when the network wants no 802.1X.
	EAPOL *EAPOL `json:"eapol,omitempty"`
}

// InterfaceMode says how the interface gets its address.
type InterfaceMode string

// The modes that a server can set.
const (
	// ModeDHCP leaves an interface alone that has an IPv4 address already which
	// the sensor did not give it: another DHCP client is at work there.
	ModeDHCP InterfaceMode = "dhcp"
	// ModeStatic leaves the addresses alone that are there already, the wanted
	// one among them.
	ModeStatic InterfaceMode = "static"
	// ModeNone leaves the interface as the host has configured it.
	ModeNone InterfaceMode = "none"
)

// Bridge is the services bridge. Its name comes from the sensor's container id.
type Bridge struct {
	// V4 is the service network. The bridge has its first address.
	V4 netip.Prefix `json:"v4"`
	// V6 is a /64 for services, or unset: then the helper takes one from
	// the unique local range, derived from the sensor's container id.
	V6 netip.Prefix `json:"v6,omitzero"`
	// CollectorPort is the only TCP port of the bridge's addresses that
	// services can reach.
	CollectorPort uint16 `json:"collector_port"`
}

// Service is a honeypot with a network namespace of its own.
type Service struct {
	// ID is the service's id at the server: one to 64 of a-z, A-Z, 0-9, _ and -.
	ID      string  `json:"id"`
	Sandbox Sandbox `json:"sandbox"`
	// Ports leads ports of the interface to ports of the service.
	Ports []Assignment `json:"ports,omitempty"`
	// CatchAll leads everything that nobody else has to this service. At most
	// one service has it.
	CatchAll bool `json:"catch_all,omitempty"`
}

// Sandbox is the container that holds a service's network namespace. The
// helper believes nothing of it: the pid must be of that container, and its
// network namespace not the helper's own.
type Sandbox struct {
	ContainerID string `json:"container_id"`
	PID         int    `json:"pid"`
}

// Assignment leads one port of the interface to a service.
type Assignment struct {
	// Port is the one that attackers see.
	Port Port `json:"port"`
	// To is the port in the service's namespace.
	To uint16 `json:"to"`
}

// Port is a transport protocol and a port number, as in 22/tcp.
type Port struct {
	Protocol Protocol `json:"protocol"`
	Number   uint16   `json:"number"`
}

// Protocol is a transport protocol.
type Protocol string

// The protocols that can be redirected.
const (
	TCP Protocol = "tcp"
	UDP Protocol = "udp"
)

// Egress says what services may reach by themselves. Answers to attackers and
// the collector are always open, the host and private addresses never with
// EgressInternet.
type Egress string

// The egress policies, strictest first.
const (
	EgressDeny     Egress = "deny"
	EgressInternet Egress = "internet"
	EgressAll      Egress = "all"
)

// HostPorts says who wins an assigned port that the host itself listens on.
type HostPorts string

// The values of HOST_PORTS.
const (
	// HostPortsProtect: the host wins, always.
	HostPortsProtect HostPorts = "protect"
	// HostPortsAssigned: the service wins over a listener on the wildcard
	// address, not over one that is bound to an address of the interface.
	HostPortsAssigned HostPorts = "assigned"
)

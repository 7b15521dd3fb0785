package helperapi

import (
	"fmt"
	"net/netip"
	"time"
)

// Observed is the state that the helper reads from the kernel.
type Observed struct {
	// Applied is true once a wanted state is in force.
	Applied   bool              `json:"applied"`
	Interface InterfaceObserved `json:"interface"`
	Bridge    BridgeObserved    `json:"bridge"`
	Services  []ServiceObserved `json:"services"`
	// Conflicts are ports that an assignment or the catch-all wants and the
	// host itself uses.
	Conflicts []Conflict `json:"conflicts"`
	// Firewalls are rules of others that forwarding had to get through.
	Firewalls []Firewall `json:"firewalls"`
	// Refused counts attempts of services to reach what they may not.
	Refused Counter `json:"refused"`
	// Lacks says in sentences what the sensor does without because this kernel
	// has it not.
	Lacks []string `json:"lacks,omitempty"`
	// Heals counts repairs after somebody else removed or changed our state.
	Heals    uint64    `json:"heals"`
	LastHeal time.Time `json:"last_heal,omitzero"`
}

// InterfaceObserved is the sensor's interface as it is.
type InterfaceObserved struct {
	Name      string         `json:"name"`
	Up        bool           `json:"up"`
	MAC       string         `json:"mac,omitempty"`
	Addresses []netip.Prefix `json:"addresses"`
	// Problem says in one sentence what keeps the interface from its wanted
	// state, or is "".
	Problem string `json:"problem,omitempty"`
	// Note says what is worth knowing and is no problem, such as whose address
	// it is and until when, or is "".
	Note string `json:"note,omitempty"`
}

// BridgeObserved is the services bridge as it is.
type BridgeObserved struct {
	Name string `json:"name"`
	// GatewayV4 and GatewayV6 are the bridge's addresses; the collector
	// listens there.
	GatewayV4 netip.Addr `json:"gateway_v4,omitzero"`
	GatewayV6 netip.Addr `json:"gateway_v6,omitzero"`
}

// ServiceObserved is an attached service.
type ServiceObserved struct {
	ID          string     `json:"id"`
	ContainerID string     `json:"container_id"`
	V4          netip.Addr `json:"v4,omitzero"`
	V6          netip.Addr `json:"v6,omitzero"`
	// Redirected counts connections that were led to the service.
	Redirected Counter `json:"redirected"`
	// Refused counts packets by which the service tried to reach what it may
	// not, Forged frames under the address of somebody else, Bounded packets and
	// frames to it and from it that were above its bounds. All were dropped.
	Refused Counter `json:"refused"`
	Forged  Counter `json:"forged"`
	Bounded Counter `json:"bounded"`
	// Tried are places where it wanted to go within the last minutes: some of
	// them when there are many, MaxTried at most.
	Tried []Attempt `json:"tried,omitempty"`
}

// Attempt is where a service wanted to go.
type Attempt struct {
	To netip.Addr `json:"to"`
	// Protocol is "tcp", "udp", "icmp", "ipv6-icmp", or the number of another.
	Protocol string `json:"protocol"`
	// Port is 0 for protocols that have none.
	Port uint16 `json:"port,omitempty"`
}

// String writes an attempt as people do, such as 192.0.2.1 25/tcp.
func (a Attempt) String() string {
	if a.Port == 0 {
		return a.To.String() + " " + a.Protocol
	}
	return fmt.Sprintf("%s %d/%s", a.To, a.Port, a.Protocol)
}

// MaxTried is the largest number of attempts that is shown of a service.
const MaxTried = 16

// Conflict is a port that the host keeps, or that the service took from it.
type Conflict struct {
	Port Port `json:"port"`
	// Service is the id of the one that wanted it.
	Service string `json:"service"`
	// Winner is "host" or "service".
	Winner string `json:"winner"`
	// Reason says who uses the port and what can be done.
	Reason string `json:"reason"`
}

// Firewall is one that was found dropping forwarded traffic.
type Firewall struct {
	// Kind is "iptables-nft", "iptables-legacy" or "nftables".
	Kind string `json:"kind"`
	// Passage names the rule that lets attackers through, or is "" when there
	// is none; Problem then says why.
	Passage string `json:"passage,omitempty"`
	Problem string `json:"problem,omitempty"`
}

// Counter counts packets, or the first packets of connections.
type Counter struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// Health answers GET /v1/health.
type Health struct {
	Version string `json:"version"`
	// Capabilities are the helper's effective ones.
	Capabilities []string `json:"capabilities"`
}

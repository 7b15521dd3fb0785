package ruleset

import (
	"fmt"
	"net/netip"
	"regexp"

	"github.com/google/nftables"

	"honeysens.org/dockersensor/shared/helperapi"
)

// Table is the table of one sensor: that of family inet, with the one at the
// ports of its bridge.
type Table struct {
	Name     string
	Family   nftables.TableFamily
	Counters []string
	Sets     []*Set
	Chains   []Chain
	// Ports is the table of family bridge, of the same name; nil in that table
	// itself, and where the kernel has no such tables.
	Ports *Table

	cfg Config
}

// All returns the table and the one at the ports.
func (t *Table) All() []*Table {
	if t.Ports == nil {
		return []*Table{t}
	}
	return []*Table{t, t.Ports}
}

// Names that others have to know.
const (
	// Heartbeat is the set whose element has to be refreshed.
	Heartbeat = "ifaces"
	// Refused counts what services tried and may not.
	Refused = refused
	// Refused4 and Refused6 count the same by the address of a service, Bounded4
	// and Bounded6 what is above its bounds.
	Refused4, Refused6, Bounded4, Bounded6 = "refused4", "refused6", "bounded4", "bounded6"
	// Tried4 and Tried6 have addresses of services, and where they wanted to go:
	// address, protocol, and port, which is 0 for protocols that have none.
	Tried4, Tried6 = "tried4", "tried6"
	// Forged and Flooded count, at the ports, frames under the address of
	// somebody else and those above the bound, by the name of the port.
	Forged, Flooded = "forged", "flooded"
	// Redirected4 and Redirected6 count connections by the address of a service.
	Redirected4, Redirected6 = "redirected4", "redirected6"
	// Kept has the ports that the host kept, Taken those that it lost.
	Kept, Taken = "kept", "taken"
	// Published has the ports that somebody else has led elsewhere.
	Published = "published"
)

// New translates a wanted state. It refuses one that contradicts itself: a
// port with two services, two catch-alls, addresses outside the bridge's
// networks or used twice, and names that are none.
func New(cfg Config) (*Table, error) {
	if cfg.Heartbeat == 0 {
		cfg.Heartbeat = DefaultHeartbeat
	}
	if cfg.TTL == 0 {
		cfg.TTL = defaultHops
	}
	if cfg.HopLimit == 0 {
		cfg.HopLimit = defaultHops
	}
	cfg.Bounds = cfg.Bounds.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	name, err := TableName(cfg.SensorID)
	if err != nil {
		return nil, err
	}
	b := builder{Config: cfg, sets: newSets(cfg)}
	table := &Table{
		Name:     name,
		Family:   nftables.TableFamilyINet,
		Counters: []string{refused},
		Sets:     b.list(cfg),
		Chains:   b.chains(),
		cfg:      cfg,
	}
	if !cfg.Lacks.Ports {
		table.Ports = portsTable(name, cfg)
	}
	return table, nil
}

const namePrefix = "honeysens-"

// TableName is the name of a sensor's table: "honeysens-" and the first twelve
// digits of its container id.
func TableName(sensorID string) (string, error) {
	if !regexp.MustCompile(`^[0-9a-f]{12,64}$`).MatchString(sensorID) {
		return "", fmt.Errorf("sensor id %.80q is not a container id", sensorID)
	}
	return namePrefix + sensorID[:12], nil
}

// IsTableName tells whether a table is one of a sensor.
func IsTableName(name string) bool {
	return regexp.MustCompile(`^` + namePrefix + `[0-9a-f]{12}$`).MatchString(name)
}

// Set returns the set of that name, or nil.
func (t *Table) Set(name string) *Set {
	for _, s := range t.Sets {
		if s.Name == name {
			return s
		}
	}
	return nil
}

// ServiceAt returns the id of the service with that address, or "".
func (t *Table) ServiceAt(addr netip.Addr) string {
	for _, svc := range t.cfg.Services {
		if svc.V4 == addr || svc.V6 == addr {
			return svc.ID
		}
	}
	return ""
}

// ServiceBehind returns the id of the service behind a port of the bridge, or
// "".
func (t *Table) ServiceBehind(port string) string {
	for _, svc := range t.cfg.Services {
		if port != "" && svc.Port == port {
			return svc.ID
		}
	}
	return ""
}

// Services returns the ids of all services.
func (t *Table) Services() []string {
	ids := make([]string, len(t.cfg.Services))
	for i, svc := range t.cfg.Services {
		ids[i] = svc.ID
	}
	return ids
}

// Conflict describes a port that a service wants and the host uses. It returns
// false when no service wants it, such as after a change of assignments.
func (t *Table) Conflict(p helperapi.Port, serviceWon bool) (helperapi.Conflict, bool) {
	id, assigned := t.wants(p)
	if id == "" || serviceWon && !assigned {
		return helperapi.Conflict{}, false
	}
	c := helperapi.Conflict{Port: p, Service: id, Winner: "host"}
	switch {
	case serviceWon:
		c.Winner = "service"
		c.Reason = fmt.Sprintf("a program on the host listens on %d/%s on all addresses; on %s the service gets it. Set HOST_PORTS=protect, or PROTECTED_PORTS, to leave it to the host.", p.Number, p.Protocol, t.cfg.Iface)
	case !assigned:
		c.Reason = fmt.Sprintf("a program on the host uses %d/%s; the catch-all never takes such a port. Stop the program to let attackers reach the honeypot.", p.Number, p.Protocol)
	case t.cfg.HostPorts == helperapi.HostPortsProtect:
		c.Reason = fmt.Sprintf("a program on the host uses %d/%s and HOST_PORTS=protect leaves it to the host. Stop the program, move it to another port, or set HOST_PORTS=assigned.", p.Number, p.Protocol)
	default:
		c.Reason = fmt.Sprintf("a program on the host uses %d/%s on an address of %s. Stop it or bind it to another interface.", p.Number, p.Protocol, t.cfg.Iface)
	}
	return c, true
}

// PublishedConflict describes an assigned port that somebody else leads
// elsewhere. It returns false when no service has it.
func (t *Table) PublishedConflict(p helperapi.Port) (helperapi.Conflict, bool) {
	id, assigned := t.wants(p)
	return helperapi.Conflict{
		Port: p, Service: id, Winner: "host",
		Reason: fmt.Sprintf("another rule on the host, such as that of a published port of Docker, leads %d/%s elsewhere. Publish another port, or set HOST_PORTS=assigned.", p.Number, p.Protocol),
	}, assigned
}

// wants returns the service that wants a port, and whether it was assigned.
func (t *Table) wants(p helperapi.Port) (id string, assigned bool) {
	for _, protected := range t.cfg.Protected {
		if protected == p {
			return "", false
		}
	}
	catchAll := ""
	for _, svc := range t.cfg.Services {
		for _, a := range svc.Ports {
			if a.Port == p {
				return svc.ID, true
			}
		}
		if svc.CatchAll {
			catchAll = svc.ID
		}
	}
	return catchAll, false
}

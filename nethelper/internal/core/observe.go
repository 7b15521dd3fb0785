package core

import (
	"context"
	"net/netip"
	"time"

	"honeysens.org/dockersensor/nethelper/internal/link"
	"honeysens.org/dockersensor/shared/helperapi"
)

// Observe returns the state as it is.
func (c *Core) Observe(ctx context.Context) (helperapi.Observed, error) {
	force := c.inForce()
	outer, err := c.parts.Interface.Observe()
	if err != nil {
		return helperapi.Observed{}, err
	}
	seen := helperapi.Observed{
		Interface: outer, Bridge: helperapi.BridgeObserved{Name: link.BridgeName(c.cfg.SensorID)},
		Services: []helperapi.ServiceObserved{}, Conflicts: []helperapi.Conflict{}, Firewalls: []helperapi.Firewall{},
	}
	c.mu.Lock()
	seen.Firewalls = append(seen.Firewalls, c.firewalls...)
	seen.Heals, seen.LastHeal = c.heals, c.lastHeal
	c.mu.Unlock()
	if force == nil {
		return seen, nil
	}
	opened, last := c.parts.Passage.Heals()
	seen = healed(seen, opened, last)
	seen.Applied = true
	seen.Bridge.GatewayV4, seen.Bridge.GatewayV6 = force.layout.GatewayV4, force.layout.GatewayV6
	return c.observeTable(ctx, force, seen)
}

func (c *Core) observeTable(ctx context.Context, force *state, seen helperapi.Observed) (helperapi.Observed, error) {
	table, err := c.parts.Table.Observe(ctx)
	if err != nil {
		return helperapi.Observed{}, err
	}
	for i, service := range force.want.Services {
		at, counts := force.attached[i], table.Services[service.ID]
		seen.Services = append(seen.Services, helperapi.ServiceObserved{
			ID: service.ID, ContainerID: at.ContainerID, V4: at.V4, V6: at.V6, Redirected: counts.Redirected,
			Refused: counts.Refused, Forged: counts.Forged, Bounded: counts.Bounded, Tried: counts.Tried,
		})
	}
	seen.Lacks = c.parts.Table.Lacks().Notes()
	seen.Conflicts = append(seen.Conflicts, c.conflicts(force, table)...)
	seen.Refused = table.Refused
	return healed(seen, table.Heals, table.LastHeal), nil
}

// healed adds the repairs of one part.
func healed(seen helperapi.Observed, heals uint64, last time.Time) helperapi.Observed {
	seen.Heals += heals
	if last.After(seen.LastHeal) {
		seen.LastHeal = last
	}
	return seen
}

// exampleBridge stands where only names matter.
func exampleBridge() helperapi.Bridge {
	return helperapi.Bridge{V4: netip.MustParsePrefix("10.10.10.0/24"), CollectorPort: 5556}
}

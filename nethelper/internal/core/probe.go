package core

import (
	"context"

	"honeysens.org/dockersensor/shared/helperapi"
)

// Probe makes a connection that arrives at the interface.
func (c *Core) Probe(ctx context.Context, want helperapi.Probe) (helperapi.ProbeResult, error) {
	force := c.inForce()
	if force == nil {
		return helperapi.ProbeResult{}, &helperapi.Error{Kind: helperapi.KindUnavailable, Message: "no state is in force yet"}
	}
	return c.parts.Prober.Connect(ctx, force.layout.Name, want)
}

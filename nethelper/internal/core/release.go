package core

import (
	"context"
	"errors"

	"honeysens.org/dockersensor/nethelper/internal/attach"
	"honeysens.org/dockersensor/shared/helperapi"
)

// Release lets go of everything but the interface: another sensor at the same
// interface is going to serve, and the connection to the server shall not break
// between them. It also removes what a killed helper of this sensor has left.
func (c *Core) Release(ctx context.Context) (helperapi.Observed, error) {
	if err := c.lock(ctx); err != nil {
		return helperapi.Observed{}, err
	}
	defer c.unlock()
	err := errors.Join(
		c.parts.Passage.Remove(ctx),
		c.parts.Table.Remove(ctx),
		c.parts.Services.Prune(ctx, attach.Network{Layout: c.lastLayout()}, nil),
		c.parts.Links.Remove(),
		c.forget(),
	)
	c.set(nil)
	if err != nil {
		return helperapi.Observed{}, err
	}
	return c.Observe(ctx)
}

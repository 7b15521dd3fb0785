package core

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"honeysens.org/dockersensor/nethelper/internal/attach"
	"honeysens.org/dockersensor/nethelper/internal/link"
	"honeysens.org/dockersensor/shared/helperapi"
)

// undoTimeout bounds what is done to get back.
const undoTimeout = 30 * time.Second

// rollBack brings the state before back, and returns the cause.
func (c *Core) rollBack(ctx context.Context, before *state, cause error) error {
	c.log.Warn("change failed, going back", zap.Error(cause))
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	var err error
	if before == nil {
		err = c.removeAll(ctx)
	} else {
		err = c.restore(ctx, before)
	}
	if err != nil {
		c.log.Error("going back failed", zap.Error(err))
		return &helperapi.Error{
			Kind:    helperapi.KindUnknownOutcome,
			Message: fmt.Sprintf("the change failed (%v), and so did going back; ask for the state and try again", cause),
		}
	}
	return cause
}

// restore converges to a state that was in force. Services whose container has
// ended since are left out; the manager will say what comes in their place.
func (c *Core) restore(ctx context.Context, before *state) error {
	want, sandboxes, err := c.living(before.want)
	if err != nil {
		return err
	}
	defer closeAll(sandboxes)
	again := &state{want: want, layout: before.layout, mtu: before.mtu}
	if err := c.converge(ctx, again, sandboxes); err != nil {
		return err
	}
	c.set(again)
	return nil
}

// living returns the state without the services whose sandboxes cannot be
// proved any more.
func (c *Core) living(want helperapi.Network) (helperapi.Network, []*attach.Sandbox, error) {
	var services []helperapi.Service
	var sandboxes []*attach.Sandbox
	for _, service := range want.Services {
		sandbox, err := c.parts.Host.Prove(service.Sandbox)
		var known *helperapi.Error
		if errors.As(err, &known) {
			c.log.Warn("service has gone", zap.String("service", service.ID), zap.Error(err))
			continue
		}
		if err != nil {
			closeAll(sandboxes)
			return want, nil, ofService(service.ID, err)
		}
		services = append(services, service)
		sandboxes = append(sandboxes, sandbox)
	}
	want.Services = services
	return want, sandboxes, nil
}

// Remove takes everything of the sensor away: after it the host is as it was.
func (c *Core) Remove(ctx context.Context) error {
	if err := c.lock(ctx); err != nil {
		return err
	}
	defer c.unlock()
	err := c.removeAll(ctx)
	c.set(nil)
	return errors.Join(err, c.forget())
}

// removeAll goes on after errors, in the reverse order of converge.
func (c *Core) removeAll(ctx context.Context) error {
	nowhere := attach.Network{Layout: c.lastLayout()}
	return errors.Join(
		c.parts.Passage.Remove(ctx),
		c.parts.Table.Remove(ctx),
		c.parts.Services.Prune(ctx, nowhere, nil),
		c.parts.Links.Remove(),
		c.parts.Interface.Remove(),
	)
}

// lastLayout returns the layout in force, or one that names the bridge at
// least.
func (c *Core) lastLayout() link.Layout {
	if s := c.inForce(); s != nil {
		return s.layout
	}
	return link.NewLayout(c.cfg.SensorID, exampleBridge())
}

package services

import (
	"context"
	"net/netip"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"go.uber.org/zap"
)

// gateway is where the collector listens; unset when the network is not there.
func (p *pass) gateway() netip.Addr {
	bridge := p.connector.observed.Bridge
	if bridge.GatewayV4.IsValid() {
		return bridge.GatewayV4
	}
	return bridge.GatewayV6
}

// ensureHoneypot makes and starts the honeypot, once its image and its network
// are there.
func (p *pass) ensureHoneypot(ctx context.Context, u *unit) {
	ready := p.gateway().IsValid() && (u.Raw || p.attached(u.pair) != nil)
	if !ready {
		if u.waiting == "" {
			u.waiting = "waits for the services network"
		}
		return
	}
	var spec Spec
	if u.image != "" {
		spec = p.honeypotSpec(u.plan, u.image, u.sandboxID(), p.gateway())
		p.compare(ctx, u, spec)
	}
	switch {
	case u.honeypot == nil && u.image == "":
	case u.honeypot != nil && u.honeypot.Running:
		if u.history.honeypot.recovering(u.honeypot) {
			p.due(u.honeypot.Started.Add(crashSettled))
		}
	default:
		p.revive(ctx, u, spec)
	}
}

// compare removes a honeypot that was made from something else, unless another
// one can be started beside it.
func (p *pass) compare(ctx context.Context, u *unit, spec Spec) {
	want := spec.fingerprint()
	if u.history.honeypot.config != want {
		u.history.honeypot = crash{config: want}
	}
	if u.honeypot == nil || u.honeypot.Config == want {
		return
	}
	if follows := p.canFollow(u, u.pair); follows || u.queued {
		u.waiting = "waits for its new revision"
		p.due(time.Now().Add(lookSoon))
		return
	}
	p.remove(ctx, u.honeypot.ID, u.ID)
	u.honeypot = nil
}

// revive starts a honeypot that does not run, unless it has to wait for having
// crashed.
func (p *pass) revive(ctx context.Context, u *unit, spec Spec) {
	if u.honeypot != nil {
		u.history.honeypot.ended(u.honeypot, func() string { return p.engine.LastLine(ctx, u.honeypot.ID) })
	}
	if time.Now().Before(u.history.honeypot.next) {
		p.due(u.history.honeypot.next)
		return
	}
	err := p.start(ctx, u, spec)
	switch {
	case ctx.Err() != nil:
		return
	case err == nil:
		if u.history.honeypot.recovering(u.honeypot) {
			p.due(u.honeypot.Started.Add(crashSettled))
		}
		return
	}
	if cerrdefs.IsNotFound(err) {
		// The image or the sandbox has gone since; the next pass sees.
		p.fetcher.forget(u.Image)
	}
	p.log.Warn("service cannot be started", zap.String("service", u.ID), zap.Error(err))
	u.history.honeypot.failed(err)
	p.due(u.history.honeypot.next)
}

func (p *pass) start(ctx context.Context, u *unit, spec Spec) error {
	var started Container
	var err error
	if u.honeypot == nil {
		started, err = p.launch(ctx, spec)
	} else {
		started, err = p.engine.Start(ctx, u.honeypot.ID)
	}
	if err == nil {
		u.honeypot = &started
		return nil
	}
	if u.honeypot != nil {
		// Whatever is wrong with it, the next one is made anew.
		p.remove(ctx, u.honeypot.ID, u.ID)
		u.honeypot = nil
	}
	return err
}

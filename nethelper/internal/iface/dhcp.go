package iface

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/zap"

	"honeysens.org/dockersensor/nethelper/internal/link"
	"honeysens.org/dockersensor/nethelper/internal/policy"
)

// maxPause is the longest pause between two attempts to get a lease.
const maxPause = time.Minute

// dhcp gets and keeps a lease for one generation of wishes.
type dhcp struct {
	keeper     *Keeper
	generation uint64
	hostname   string
	// again says that the network may answer now.
	again <-chan struct{}
}

func (d *dhcp) run(ctx context.Context) {
	pause := d.keeper.cfg.Retry
	for d.ready(ctx) {
		got, err := d.acquire(ctx)
		if ctx.Err() != nil || errors.Is(err, errStale) {
			return
		}
		if err != nil {
			d.keeper.log.Warn("no lease", zap.Error(err))
			d.say(fmt.Sprintf("DHCP at %s: %s; trying again", d.keeper.cfg.Iface, unanswered(err)), "")
			d.wait(ctx, pause)
			pause = min(2*pause, maxPause)
			continue
		}
		pause = d.keeper.cfg.Retry
		d.hold(ctx, got)
	}
}

// ready waits until the interface has a carrier, and for some time no address
// that is the host's. It is false when ctx has ended.
func (d *dhcp) ready(ctx context.Context) bool {
	var since time.Time
	for ctx.Err() == nil {
		seen, err := d.glance()
		switch {
		case errors.Is(err, errStale):
			return false
		case err != nil || !seen.carrier:
			since = time.Time{}
		case seen.foreign.IsValid():
			since = time.Time{}
			d.say("", fmt.Sprintf("the host itself has given %s the address %v, so the sensor uses no DHCP there", d.keeper.cfg.Iface, seen.foreign))
		case seen.own:
			return true
		case since.IsZero():
			since = time.Now()
		}
		if !since.IsZero() && time.Since(since) >= d.keeper.cfg.Patience {
			return true
		}
		d.wait(ctx, d.keeper.cfg.Look)
	}
	return false
}

// glance is what DHCP must know of the interface.
type glance struct {
	mac     net.HardwareAddr
	carrier bool
	// foreign is an IPv4 address that somebody else gave.
	foreign netip.Prefix
	// address is that of the sensor, and own tells whether it is there.
	address netip.Prefix
	own     bool
}

func (d *dhcp) glance() (glance, error) {
	var seen glance
	err := d.keeper.as(d.generation, func(l netlink.Link, note *record) error {
		attrs := l.Attrs()
		seen.mac, seen.address = attrs.HardwareAddr, note.address
		seen.carrier = attrs.Flags&net.FlagUp != 0 && attrs.OperState != netlink.OperDown && attrs.OperState != netlink.OperLowerLayerDown
		found, err := addresses(l)
		if err != nil {
			return err
		}
		for _, address := range found {
			addr := address.prefix.Addr()
			switch {
			case address.prefix == note.address:
				seen.own = true
			case addr.Is4() && !addr.IsLinkLocalUnicast():
				seen.foreign = address.prefix
			}
		}
		return nil
	})
	return seen, err
}

func (d *dhcp) acquire(ctx context.Context) (lease, error) {
	seen, err := d.glance()
	if err != nil {
		return lease{}, err
	}
	got, err := d.asker(seen).acquire(ctx, seen.address.Addr())
	if err != nil {
		return lease{}, err
	}
	return got, d.take(got)
}

func (d *dhcp) asker(seen glance) *asker {
	return &asker{iface: d.keeper.cfg.Iface, mac: seen.mac, hostname: d.hostname, patience: d.keeper.cfg.Answer}
}

// take gives the interface the address of a lease, for as long as it lasts.
func (d *dhcp) take(got lease) error {
	k := d.keeper
	err := k.as(d.generation, func(l netlink.Link, note *record) error {
		uses, err := link.Uses(k.bridge())
		if err != nil {
			return err
		}
		if err := policy.CheckAddress(k.cfg.Iface, got.address, k.services, uses); err != nil {
			return err
		}
		fresh := note.address != got.address
		if note.address.IsValid() && fresh {
			if err := forgetAddress(l, note); err != nil {
				return err
			}
		}
		note.address = got.address
		if err := keep(l, *note); err != nil {
			return err
		}
		if err := place(l, got.address, got.gateway, got.remains()); err != nil {
			return err
		}
		k.lease = &got
		if !fresh {
			return nil
		}
		k.log.Info("lease taken", zap.Stringer("address", got.address), zap.Stringer("server", got.server), zap.Duration("lasts", got.lasted))
		return k.announce(l, got.address)
	})
	if err != nil {
		return err
	}
	d.say("", fmt.Sprintf("%v by DHCP from %v until %s", got.address, got.server, got.taken.Add(got.lasted).UTC().Format(time.RFC3339)))
	return nil
}

// hold renews a lease until it cannot be held any longer.
func (d *dhcp) hold(ctx context.Context, held lease) {
	ask, carried, anywhere := held.taken.Add(held.renew), true, false
	for d.wait(ctx, d.keeper.cfg.Look) {
		seen, err := d.glance()
		switch {
		case errors.Is(err, errStale):
			return
		case err != nil:
			continue
		case seen.foreign.IsValid():
			d.leave(seen, held, "")
			return
		case held.remains() <= 0:
			d.leave(seen, held, fmt.Sprintf("DHCP at %s: the lease of %v has ended, and no server has prolonged it", d.keeper.cfg.Iface, held.address))
			return
		case !seen.carrier:
			carried = false
			continue
		case !carried:
			// It may be another network now (RFC 2131, 3.7).
			carried, anywhere, ask = true, true, time.Now()
		case !seen.own:
			d.log(d.take(held))
		}
		if time.Now().Before(ask) {
			continue
		}
		rebind := anywhere || time.Since(held.taken) >= held.rebind
		fresh, err := d.extend(ctx, seen, held, rebind)
		if errors.Is(err, errRefused) {
			d.leave(seen, held, fmt.Sprintf("DHCP at %s: the server wants %v back", d.keeper.cfg.Iface, held.address))
			return
		}
		if err != nil {
			ask = d.next(held, rebind)
			continue
		}
		held, anywhere = fresh, false
		ask = held.taken.Add(held.renew)
	}
}

// next is when to ask again after a failure: half-way to where every server is
// asked, and then half-way to the end (RFC 2131, 4.4.5).
func (d *dhcp) next(held lease, rebind bool) time.Time {
	end := held.taken.Add(held.lasted)
	if !rebind {
		end = held.taken.Add(held.rebind)
	}
	ask := time.Now().Add(max(d.keeper.cfg.Retry, time.Until(end)/2))
	if ask.After(end) {
		return end
	}
	return ask
}

func (d *dhcp) extend(ctx context.Context, seen glance, held lease, rebind bool) (lease, error) {
	limited, cancel := context.WithTimeout(ctx, held.remains())
	defer cancel()
	fresh, err := d.asker(seen).extend(limited, held, rebind)
	if err == nil {
		err = d.take(fresh)
	}
	if err != nil && ctx.Err() == nil {
		d.keeper.log.Warn("lease not prolonged", zap.Stringer("address", held.address), zap.Bool("any_server", rebind), zap.Error(err))
	}
	return fresh, err
}

// leave takes the address of a lease away. Without a problem the lease goes
// back to its server, since the interface has an address from elsewhere.
func (d *dhcp) leave(seen glance, held lease, problem string) {
	if problem == "" {
		d.log(d.asker(seen).release(held))
	}
	err := d.keeper.as(d.generation, func(l netlink.Link, note *record) error {
		d.keeper.lease = nil
		if note.address != held.address {
			return nil
		}
		return forgetAddress(l, note)
	})
	d.log(err)
	d.keeper.log.Warn("lease left", zap.Stringer("address", held.address), zap.String("problem", problem))
	d.say(problem, "")
}

func (d *dhcp) log(err error) {
	if err != nil && !errors.Is(err, errStale) {
		d.keeper.log.Error("dhcp", zap.Error(err))
	}
}

func (d *dhcp) say(problem, note string) {
	d.keeper.say(d.generation, &d.keeper.dhcp, report{problem, note})
}

// wait is false when ctx has ended.
func (d *dhcp) wait(ctx context.Context, pause time.Duration) bool {
	select {
	case <-ctx.Done():
	case <-d.again:
	case <-time.After(pause):
	}
	return ctx.Err() == nil
}

package link

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const (
	ipv4 = "ipv4"
	ipv6 = "ipv6"
	on   = "1"
	off  = "0"
)

// Forwarding tells how the host stands without the sensor.
type Forwarding struct {
	// WasOffV4 and WasOffV6: the host would not forward what arrives at the
	// interface, so nothing but the services may gain by our switching it on.
	WasOffV4, WasOffV6 bool
	// AllV6: the kernel has only the global switch for IPv6, so it is on for
	// all interfaces.
	AllV6 bool
	// TTL and HopLimit are what the host gives its own packets at the interface.
	TTL, HopLimit uint8
}

// observe notes what is now, before anything is changed. Another sensor at the
// same interface may have changed it already; then its note counts.
func (b *Bridge) observe(others []record) (record, error) {
	r := record{sensor: b.sensor, iface: b.iface, v6: v6None, v6Value: off}
	for _, other := range others {
		if other.iface == b.iface {
			r.v4, r.all4, r.v6, r.v6Value = other.v4, other.all4, other.v6, other.v6Value
			return r, nil
		}
	}
	var err error
	if r.v4, err = readSysctl(ipv4, b.iface, "forwarding"); err != nil {
		return record{}, err
	}
	if r.all4, err = readSysctl(ipv4, "all", "forwarding"); err != nil {
		return record{}, err
	}
	switch {
	case !hasSysctl(ipv6, "all", "forwarding"):
	case hasSysctl(ipv6, b.iface, "force_forwarding") && !b.oldKernel:
		r.v6 = v6Force
		r.v6Value, err = readSysctl(ipv6, b.iface, "force_forwarding")
	default:
		r.v6 = v6All
		r.v6Value, err = allV6(others)
	}
	return r, err
}

// allV6 returns the global IPv6 switch as it was before any sensor.
func allV6(others []record) (string, error) {
	for _, other := range others {
		if other.v6 == v6All {
			return other.v6Value, nil
		}
	}
	return readSysctl(ipv6, "all", "forwarding")
}

// forward lets packets pass between the bridge and the interface.
func (b *Bridge) forward(r record) error {
	for _, iface := range []string{b.name, b.iface} {
		if err := writeSysctl(ipv4, iface, "forwarding", on); err != nil {
			return fmt.Errorf("forward IPv4 from %s: %w", iface, err)
		}
	}
	switch r.v6 {
	case v6Force:
		for _, iface := range []string{b.name, b.iface} {
			if err := writeSysctl(ipv6, iface, "force_forwarding", on); err != nil {
				return fmt.Errorf("forward IPv6 from %s: %w", iface, err)
			}
		}
	case v6All:
		if err := setAllV6(on); err != nil {
			return fmt.Errorf("forward IPv6: %w", err)
		}
	case v6None:
	}
	return nil
}

// standing tells how the host stands without us. When somebody else has
// switched forwarding on for the whole host since, it is on.
func (r record) standing() (Forwarding, error) {
	ttl, hopLimit, err := distances(r.iface)
	if err != nil {
		return Forwarding{}, err
	}
	f := Forwarding{AllV6: r.v6 == v6All, TTL: ttl, HopLimit: hopLimit}
	wanted, err := r.switchedOnSince()
	if err != nil {
		return f, err
	}
	f.WasOffV4 = r.v4 == off && !wanted
	switch r.v6 {
	case v6Force:
		all, err := readSysctl(ipv6, "all", "forwarding")
		if err != nil {
			return f, err
		}
		f.WasOffV6 = all == off && r.v6Value == off
	case v6All:
		wanted, err := r.allV6SwitchedOnSince()
		if err != nil {
			return f, err
		}
		f.WasOffV6 = r.v6Value == off && !wanted
	case v6None:
	}
	return f, nil
}

func (r record) switchedOnSince() (bool, error) {
	all, err := readSysctl(ipv4, "all", "forwarding")
	return err == nil && all == on && r.all4 == off, err
}

// allV6SwitchedOnSince: who switches IPv6 forwarding on for all interfaces does
// so for those to come, too, even when it is on already. We do not.
func (r record) allV6SwitchedOnSince() (bool, error) {
	all, err := readSysctl(ipv6, "all", "forwarding")
	if err != nil {
		return false, err
	}
	coming, err := readSysctl(ipv6, "default", "forwarding")
	return err == nil && all == on && coming == on && r.v6Value == off, err
}

// distances reads how far the host's own packets may go.
func distances(iface string) (ttl, hopLimit uint8, err error) {
	raw, err := os.ReadFile(filepath.Join(sysctls, ipv4, "ip_default_ttl"))
	if err != nil {
		return 0, 0, fmt.Errorf("read sysctl: %w", err)
	}
	if ttl, err = parseHops(strings.TrimSpace(string(raw))); err != nil || !hasSysctl(ipv6, iface, "hop_limit") {
		return ttl, 0, err
	}
	limit, err := readSysctl(ipv6, iface, "hop_limit")
	if err != nil {
		return 0, 0, err
	}
	hopLimit, err = parseHops(limit)
	return ttl, hopLimit, err
}

func parseHops(text string) (uint8, error) {
	n, err := strconv.ParseUint(text, 10, 8)
	if err != nil {
		return 0, fmt.Errorf("read sysctl: number of hops: %w", err)
	}
	return uint8(n), nil
}

// restore brings the host's switches back to what they were, except for those
// that another sensor still needs: that one has the same note.
func (r record) restore(others []record) error {
	var shared, sharedAll bool
	for _, other := range others {
		shared = shared || other.iface == r.iface
		sharedAll = sharedAll || other.v6 == v6All
	}
	var errs []error
	if !shared {
		wanted, err := r.switchedOnSince()
		if !wanted {
			err = errors.Join(err, restoreSysctl(ipv4, r.iface, "forwarding", r.v4))
		}
		errs = append(errs, err)
		if r.v6 == v6Force {
			errs = append(errs, restoreSysctl(ipv6, r.iface, "force_forwarding", r.v6Value))
		}
	}
	if !sharedAll && r.v6 == v6All {
		wanted, err := r.allV6SwitchedOnSince()
		if !wanted {
			err = errors.Join(err, setAllV6(r.v6Value))
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// setAllV6 writes the global switch without its side effects. Writing it sets
// the switch of every interface, which makes each a router that ignores router
// advertisements, and removes the default routes learned from them. So
// interfaces that use them are told to do so as routers, too (accept_ra 2), for
// the moment, and then every interface gets its own two values back.
func setAllV6(value string) error {
	now, err := readSysctl(ipv6, "all", "forwarding")
	if err != nil || now == value {
		return err
	}
	names, err := interfacesV6()
	if err != nil {
		return err
	}
	forwarding, acceptRA := map[string]string{}, map[string]string{}
	for _, name := range names {
		// An interface may go at any moment: it is left out then.
		f, errF := readSysctl(ipv6, name, "forwarding")
		a, errA := readSysctl(ipv6, name, "accept_ra")
		if errF != nil || errA != nil {
			continue
		}
		forwarding[name] = f
		if a == on && f == off {
			acceptRA[name] = a
		}
	}
	var errs []error
	for name := range acceptRA {
		errs = append(errs, restoreSysctl(ipv6, name, "accept_ra", "2"))
	}
	errs = append(errs, writeSysctl(ipv6, "all", "forwarding", value))
	for name, before := range forwarding {
		errs = append(errs, restoreSysctl(ipv6, name, "forwarding", before))
	}
	for name, before := range acceptRA {
		errs = append(errs, restoreSysctl(ipv6, name, "accept_ra", before))
	}
	return errors.Join(errs...)
}

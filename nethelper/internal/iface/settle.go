package iface

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/vishvananda/netlink"
	"go.uber.org/zap"

	"honeysens.org/dockersensor/nethelper/internal/link"
	"honeysens.org/dockersensor/shared/helperapi"
)

// look returns the interface with its record: the one in its alias, whosever it
// is, or what one would be that begins now.
func (k *Keeper) look() (netlink.Link, record, error) {
	name := k.cfg.Iface
	l, err := netlinksafe.LinkByName(name)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return nil, record{}, &helperapi.Error{Kind: helperapi.KindConflict, Message: link.MissingText(name)}
	}
	if err != nil {
		return nil, record{}, fmt.Errorf("interface %s: %w", name, err)
	}
	alias := l.Attrs().Alias
	if note, ours := parseRecord(alias); ours {
		return l, note, nil
	}
	return l, record{sensor: k.sensor(), wasUp: l.Attrs().Flags&net.FlagUp != 0, alias: alias}, nil
}

// keep writes the record, or the operator's alias when there is nothing to
// remember.
func keep(l netlink.Link, note record) error {
	alias := note.alias
	if note.changed() {
		alias = note.String()
	}
	if len(alias) > maxAlias {
		return &helperapi.Error{
			Kind:    helperapi.KindConflict,
			Message: fmt.Sprintf("interface %s: its alias is too long to keep notes beside it; shorten it", l.Attrs().Name),
		}
	}
	if alias == l.Attrs().Alias {
		return nil
	}
	if err := netlink.LinkSetAlias(l, alias); err != nil {
		return fmt.Errorf("set alias of %s: %w", l.Attrs().Name, err)
	}
	l.Attrs().Alias = alias
	return nil
}

// settle brings about all of a wish that needs no answer of others. With
// takeOver it also takes what another sensor has changed for its own.
func (k *Keeper) settle(want helperapi.Interface, takeOver bool) error {
	l, note, err := k.look()
	if err != nil {
		return err
	}
	k.taken, k.kept = "", ""
	if note.sensor != k.sensor() {
		if !takeOver {
			k.taken, k.lease, k.dhcp, k.eapol = note.sensor, nil, report{}, report{}
			return nil
		}
		k.log.Info("taking interface over", zap.String("from", note.sensor))
		note.sensor = k.sensor()
		if err := keep(l, note); err != nil {
			return err
		}
	}
	if err := settleMAC(l, &note, want.MAC); err != nil {
		return err
	}
	if err := settleUp(l, &note, want.Mode != helperapi.ModeNone || want.EAPOL != nil); err != nil {
		return err
	}
	if note.claimed != (want.EAPOL != nil) {
		note.claimed = !note.claimed
		if err := keep(l, note); err != nil {
			return err
		}
	}
	if err := k.settleAddress(l, &note, want); err != nil {
		return err
	}
	return k.settleNames(want)
}

// settleMAC sets the wanted hardware address, or the one before when none is
// wanted any more and nobody else has changed it since.
func settleMAC(l netlink.Link, note *record, want string) error {
	now := l.Attrs().HardwareAddr
	goal := note.mac
	if want != "" {
		mac, err := net.ParseMAC(want)
		if err != nil {
			return fmt.Errorf("hardware address %q: %w", want, err)
		}
		goal = mac
	}
	if goal == nil || bytes.Equal(now, goal) && want != "" {
		return nil
	}
	if want != "" {
		if note.mac == nil {
			note.mac = now
		}
		note.set = goal
		if err := keep(l, *note); err != nil {
			return err
		}
		return changeMAC(l, goal)
	}
	if bytes.Equal(now, note.set) {
		if err := changeMAC(l, goal); err != nil {
			return err
		}
	}
	note.mac, note.set = nil, nil
	return keep(l, *note)
}

// changeMAC tells the neighbours as well.
func changeMAC(l netlink.Link, mac net.HardwareAddr) error {
	if err := setMAC(l, mac); err != nil {
		return err
	}
	l.Attrs().HardwareAddr = mac
	if l.Attrs().Flags&net.FlagUp == 0 {
		return nil
	}
	found, err := addresses(l)
	if err != nil {
		return err
	}
	for _, address := range found {
		if err := announce(l.Attrs().Name, mac, address.prefix.Addr()); err != nil {
			return err
		}
	}
	return nil
}

func settleUp(l netlink.Link, note *record, needed bool) error {
	isUp := l.Attrs().Flags&net.FlagUp != 0
	switch {
	case needed && !isUp:
		note.wasUp = false
		if err := keep(l, *note); err != nil {
			return err
		}
		if err := netlink.LinkSetUp(l); err != nil {
			return fmt.Errorf("set %s up: %w", l.Attrs().Name, err)
		}
		l.Attrs().Flags |= net.FlagUp
	case !needed && !note.wasUp:
		if err := netlink.LinkSetDown(l); err != nil {
			return fmt.Errorf("set %s down: %w", l.Attrs().Name, err)
		}
		l.Attrs().Flags &^= net.FlagUp
		note.wasUp = true
		return keep(l, *note)
	}
	return nil
}

// settleAddress gives the interface its static address, and takes one away that
// is not wanted any more. That of a lease is left to DHCP.
func (k *Keeper) settleAddress(l netlink.Link, note *record, want helperapi.Interface) error {
	found, err := addresses(l)
	if err != nil {
		return err
	}
	has := map[netip.Prefix]present{}
	for _, address := range found {
		has[address.prefix] = address
	}
	wanted := want.Mode == helperapi.ModeStatic
	leased := want.Mode == helperapi.ModeDHCP && (has[note.address].temporary || !has[note.address].prefix.IsValid())
	if note.address.IsValid() && !leased && (!wanted || note.address != want.Address) {
		if err := forgetAddress(l, note); err != nil {
			return err
		}
	}
	if want.Mode != helperapi.ModeDHCP {
		k.lease = nil
	}
	if !wanted {
		return nil
	}
	there := has[want.Address]
	if there.prefix.IsValid() && note.address != want.Address {
		k.kept = fmt.Sprintf("the host has given %s the address %v itself, so it is left alone", l.Attrs().Name, want.Address)
		return nil
	}
	if there.prefix.IsValid() && !there.temporary {
		return settleRoutes(l, want)
	}
	note.address = want.Address
	if err := keep(l, *note); err != nil {
		return err
	}
	if err := place(l, want.Address, want.Gateway, 0); err != nil {
		return err
	}
	return k.announce(l, want.Address)
}

// settleRoutes changes the routes of an address that is there already: the
// gateway may be another one, or none any more.
func settleRoutes(l netlink.Link, want helperapi.Interface) error {
	gateway, rest, err := ownRoutes(l)
	if err != nil {
		return err
	}
	if gateway == want.Gateway && slices.Equal(rest, []netip.Prefix{want.Address.Masked()}) {
		return nil
	}
	if err := removeRoutes(l); err != nil {
		return err
	}
	return place(l, want.Address, want.Gateway, 0)
}

func (k *Keeper) announce(l netlink.Link, address netip.Prefix) error {
	if !address.Addr().Is4() || l.Attrs().Flags&net.FlagUp == 0 {
		return nil
	}
	return announce(l.Attrs().Name, l.Attrs().HardwareAddr, address.Addr())
}

func forgetAddress(l netlink.Link, note *record) error {
	if err := displace(l, note.address); err != nil {
		return err
	}
	note.address = netip.Prefix{}
	return keep(l, *note)
}

// settleNames sees to the name servers of a static wish and of a lease.
func (k *Keeper) settleNames(want helperapi.Interface) error {
	servers := want.DNS
	if want.Mode == helperapi.ModeDHCP && k.lease != nil {
		servers = k.lease.dns
	}
	if want.Mode == helperapi.ModeNone {
		servers = nil
	}
	if k.cfg.ResolvConf == "" {
		return nil
	}
	if len(servers) > 0 {
		return writeResolv(k.cfg.ResolvConf, k.sensor(), servers)
	}
	_, err := restoreResolv(k.cfg.ResolvConf, func(sensor string) bool { return sensor == k.sensor() })
	return err
}

// undo brings an interface back to its record. It goes on after errors.
func undo(l netlink.Link, note record, resolvConf string) error {
	var errs []error
	if note.address.IsValid() {
		errs = append(errs, displace(l, note.address))
	}
	if note.mac != nil && bytes.Equal(l.Attrs().HardwareAddr, note.set) {
		errs = append(errs, changeMAC(l, note.mac))
	}
	if !note.wasUp {
		errs = append(errs, netlink.LinkSetDown(l))
	}
	if resolvConf != "" {
		_, err := restoreResolv(resolvConf, func(sensor string) bool { return sensor == note.sensor })
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("restore interface %s: %w", l.Attrs().Name, err)
	}
	return keep(l, record{wasUp: true, alias: note.alias})
}

// Cleanup brings the interfaces back that sensors have changed whose id match
// accepts, and the name servers in resolvConf, and returns what it was about.
// It goes by what is in the kernel, and on after errors.
func Cleanup(match func(sensor string) bool, resolvConf string) ([]string, error) {
	links, err := netlinksafe.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var done []string
	var errs []error
	for _, l := range links {
		note, ours := parseRecord(l.Attrs().Alias)
		if !ours || !match(note.sensor) {
			continue
		}
		if err := undo(l, note, ""); err != nil {
			errs = append(errs, err)
			continue
		}
		done = append(done, "changes to interface "+l.Attrs().Name)
	}
	restored, err := restoreResolv(resolvConf, match)
	if restored && err == nil {
		done = append(done, "name servers in "+resolvConf)
	}
	return done, errors.Join(append(errs, err)...)
}

package iface

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
)

// asker speaks DHCP for one interface. A socket is open only while it asks.
type asker struct {
	iface    string
	mac      net.HardwareAddr
	hostname string
	// patience is how long the first of tries questions waits; each next one
	// waits twice as long.
	patience time.Duration
}

const tries = 3

// options are what every question has. The client is known by its hardware
// address alone, so a server gives the same address to a host and its sensor.
func (a *asker) options() []dhcpv4.Modifier {
	options := []dhcpv4.Modifier{dhcpv4.WithRequestedOptions(
		dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionDomainNameServer,
		dhcpv4.OptionIPAddressLeaseTime, dhcpv4.OptionRenewTimeValue, dhcpv4.OptionRebindingTimeValue,
	)}
	if a.hostname != "" {
		options = append(options, dhcpv4.WithOption(dhcpv4.OptHostName(a.hostname)))
	}
	return options
}

func (a *asker) client(source netip.Addr, server net.IP) (*nclient4.Client, error) {
	conn, err := openSocket(a.iface, source)
	if err != nil {
		return nil, err
	}
	return nclient4.NewWithConn(conn, a.mac, nclient4.WithTimeout(a.patience), nclient4.WithRetry(tries),
		nclient4.WithServerAddr(&net.UDPAddr{IP: server, Port: serverPort}))
}

// acquire gets a lease of any server, of the given address when the server
// likes that.
func (a *asker) acquire(ctx context.Context, hint netip.Addr) (lease, error) {
	client, err := a.client(netip.Addr{}, net.IPv4bcast)
	if err != nil {
		return lease{}, err
	}
	defer client.Close()
	discover := a.options()
	if hint.IsValid() && hint.Is4() {
		discover = append(discover, dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(hint.AsSlice())))
	}
	offer, err := client.DiscoverOffer(ctx, discover...)
	if err != nil {
		return lease{}, err
	}
	taken := time.Now()
	got, err := client.RequestFromOffer(ctx, offer, a.options()...)
	if err != nil {
		return lease{}, err
	}
	return parseLease(a.iface, got.ACK, taken)
}

// extend prolongs a lease: at its server, or with rebind at any. errRefused
// means that the address must not be used any more.
func (a *asker) extend(ctx context.Context, old lease, rebind bool) (lease, error) {
	server := net.IP(old.server.AsSlice())
	if rebind {
		server = net.IPv4bcast
	}
	client, err := a.client(old.address.Addr(), server)
	if err != nil {
		return lease{}, err
	}
	defer client.Close()
	request, err := dhcpv4.New(dhcpv4.PrependModifiers(a.options(), dhcpv4.WithHwAddr(a.mac),
		dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithClientIP(old.address.Addr().AsSlice()))...)
	if err != nil {
		return lease{}, fmt.Errorf("make request: %w", err)
	}
	taken := time.Now()
	answers := nclient4.IsMessageType(dhcpv4.MessageTypeAck, dhcpv4.MessageTypeNak)
	if !rebind {
		answers = nclient4.IsAll(answers, nclient4.IsCorrectServer(server))
	}
	answer, err := client.SendAndRead(ctx, client.RemoteAddr(), request, answers)
	if err != nil {
		return lease{}, err
	}
	if answer.MessageType() == dhcpv4.MessageTypeNak {
		return lease{}, errRefused
	}
	fresh, err := parseLease(a.iface, answer, taken)
	if err == nil && fresh.address.Addr() != old.address.Addr() {
		err = fmt.Errorf("asked for %v, got %v", old.address.Addr(), fresh.address.Addr())
	}
	if answer.SubnetMask() == nil {
		// Some servers leave out what they said before.
		fresh.address, fresh.gateway = old.address, old.gateway
	}
	return fresh, err
}

// release gives a lease back. Nobody answers to that.
func (a *asker) release(l lease) error {
	conn, err := openSocket(a.iface, l.address.Addr())
	if err != nil {
		return err
	}
	defer conn.Close()
	message, err := dhcpv4.New(dhcpv4.WithHwAddr(a.mac), dhcpv4.WithMessageType(dhcpv4.MessageTypeRelease),
		dhcpv4.WithClientIP(l.address.Addr().AsSlice()), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(l.server.AsSlice())))
	if err != nil {
		return fmt.Errorf("make release: %w", err)
	}
	_, err = conn.WriteTo(message.ToBytes(), &net.UDPAddr{IP: l.server.AsSlice(), Port: serverPort})
	return err
}

// unanswered says in words why there is no lease.
func unanswered(err error) string {
	var nak *nclient4.ErrNak
	switch {
	case errors.As(err, &nak):
		return "the DHCP server refuses"
	case errors.Is(err, nclient4.ErrNoResponse):
		return "no DHCP server answers"
	}
	return err.Error()
}

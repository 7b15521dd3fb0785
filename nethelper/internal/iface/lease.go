package iface

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"honeysens.org/dockersensor/shared/helperapi"
)

const (
	// minLease is shorter than any lease that makes sense; below it a server
	// could keep the client busy.
	minLease = 10 * time.Second
	// maxLease is when even a lease without an end is renewed, twice over.
	maxLease = 30 * 24 * time.Hour
	// maxNameServers is how many of them a resolver asks (resolv.conf(5)).
	maxNameServers = 3
)

// lease is what a server gave, after it was found to be possible.
type lease struct {
	address netip.Prefix
	gateway netip.Addr
	dns     []netip.Addr
	server  netip.Addr
	// taken is when it was asked for; the others count from then.
	taken                 time.Time
	renew, rebind, lasted time.Duration
}

// parseLease reads the answer of a server to a request that was sent at taken.
// A gateway that cannot be reached and impossible name servers are left out;
// all else that is impossible is an error.
func parseLease(iface string, ack *dhcpv4.DHCPv4, taken time.Time) (lease, error) {
	l := lease{taken: taken}
	addr, ok := toAddr(ack.YourIPAddr)
	mask := ack.SubnetMask()
	if mask == nil {
		mask = ack.YourIPAddr.DefaultMask()
	}
	bits, size := mask.Size()
	if !ok || size != 32 {
		return lease{}, fmt.Errorf("lease of %v with mask %v: impossible", ack.YourIPAddr, net.IP(mask))
	}
	l.address = netip.PrefixFrom(addr, bits)
	if l.server, ok = toAddr(ack.ServerIdentifier()); !ok {
		return lease{}, fmt.Errorf("lease of %v: from no server", addr)
	}
	if routers := ack.Router(); len(routers) > 0 {
		l.gateway, _ = toAddr(routers[0])
	}
	for _, ip := range ack.DNS() {
		if server, ok := toAddr(ip); ok && len(l.dns) < maxNameServers && l.possible(iface, netip.Addr{}, []netip.Addr{server}) == nil {
			l.dns = append(l.dns, server)
		}
	}
	if err := l.possible(iface, netip.Addr{}, nil); err != nil {
		return lease{}, err
	}
	if l.gateway.IsValid() && l.possible(iface, l.gateway, nil) != nil {
		l.gateway = netip.Addr{}
	}
	return l, l.times(ack)
}

// possible asks what would be asked of a static address.
func (l *lease) possible(iface string, gateway netip.Addr, dns []netip.Addr) error {
	probe := helperapi.Interface{Name: iface, Mode: helperapi.ModeStatic, Address: l.address, Gateway: gateway, DNS: dns}
	return probe.Validate()
}

func (l *lease) times(ack *dhcpv4.DHCPv4) error {
	l.lasted = min(ack.IPAddressLeaseTime(0), maxLease)
	if l.lasted < minLease {
		return fmt.Errorf("lease of %v for %v: too short", l.address.Addr(), l.lasted)
	}
	l.renew, l.rebind = ack.IPAddressRenewalTime(0), ack.IPAddressRebindingTime(0)
	if l.renew <= 0 || l.renew >= l.lasted {
		l.renew = l.lasted / 2
	}
	if l.rebind <= l.renew || l.rebind >= l.lasted {
		// RFC 2131, 4.4.5.
		l.rebind = max(l.lasted*7/8, l.renew)
	}
	return nil
}

// remains is how long the lease still lasts.
func (l *lease) remains() time.Duration { return l.lasted - time.Since(l.taken) }

func toAddr(ip net.IP) (netip.Addr, bool) {
	addr, ok := netip.AddrFromSlice(ip)
	addr = addr.Unmap()
	return addr, ok && addr.Is4() && !addr.IsUnspecified()
}

// errRefused: the server does not want us to have the address.
var errRefused = errors.New("the server refuses the address")

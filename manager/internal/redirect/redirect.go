// Package redirect writes the rules that an operator needs on the host when the
// sensor runs in bridge networking. The sensor never writes them itself: they
// are in a network that is not its own.
package redirect

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Config says what is to be led where.
type Config struct {
	// Sensor is the sensor's own IPv4 address behind the host.
	Sensor netip.Addr
	// Interface of the host receives the attackers.
	Interface string
	// Keep are ports that stay with the host, its ssh among them.
	Keep []uint16
}

// IPTables returns commands for hosts that use iptables. Only what opens a
// connection is led away, so that late packets of the host's own connections
// stay with it. Docker drops what is not published where it has switched
// forwarding on itself, and from 28 on in any case: the last command is for that,
// and does no harm elsewhere.
func IPTables(cfg Config) string {
	var b strings.Builder
	fmt.Fprintf(&b, "iptables -t nat -A PREROUTING -i %s -p tcp --syn%s -m addrtype --dst-type LOCAL -j DNAT --to-destination %s\n",
		cfg.Interface, except(cfg.Keep), cfg.Sensor)
	fmt.Fprintf(&b, "iptables -t nat -A PREROUTING -i %s -p udp%s -m addrtype --dst-type LOCAL -j DNAT --to-destination %s\n",
		cfg.Interface, except(cfg.udp()), cfg.Sensor)
	fmt.Fprintf(&b, "iptables -I DOCKER-USER -i %s -d %s -m conntrack --ctstate DNAT -j ACCEPT\n", cfg.Interface, cfg.Sensor)
	return b.String()
}

func except(ports []uint16) string {
	if len(ports) == 0 {
		return ""
	}
	return " -m multiport ! --dports " + list(ports, ",")
}

// dhcpClient is where answers of a DHCP server arrive (RFC 2131): the host's
// own are never an attack.
const dhcpClient = 68

func (cfg Config) udp() []uint16 { return append([]uint16{dhcpClient}, cfg.Keep...) }

// AcceptMark is the bit of the packet mark that NFTables sets, as Docker wants it:
// value and mask.
const AcceptMark = "0x10000000/0x10000000"

// NFTables returns a table for hosts that use nft, for `nft -f -`. It cannot
// accept on behalf of Docker: a packet that one table accepts the next one may
// drop. Where Docker has iptables, its chain DOCKER-USER needs the last line of
// IPTables. Where it has nftables, its option bridge-accept-fwmark lets pass what
// has AcceptMark; the mark comes just before Docker's own chain.
func NFTables(cfg Config) string {
	tcp := "tcp flags & (fin|syn|rst|ack) == syn"
	if len(cfg.Keep) > 0 {
		tcp += fmt.Sprintf(" tcp dport != { %s }", list(cfg.Keep, ", "))
	}
	return fmt.Sprintf(`table ip honeysens-redirect {
	chain prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		iifname %[1]q fib daddr type local %[2]s dnat to %[4]s
		iifname %[1]q fib daddr type local udp dport != { %[3]s } dnat to %[4]s
	}
	chain forward {
		type filter hook forward priority filter - 1; policy accept;
		iifname %[1]q ip daddr %[4]s ct status dnat meta mark set meta mark or %[5]s
	}
}
`, cfg.Interface, tcp, list(cfg.udp(), ", "), cfg.Sensor, strings.Split(AcceptMark, "/")[0])
}

func list(numbers []uint16, separator string) string {
	ports := slices.Compact(slices.Sorted(slices.Values(numbers)))
	texts := make([]string, len(ports))
	for i, port := range ports {
		texts[i] = strconv.Itoa(int(port))
	}
	return strings.Join(texts, separator)
}

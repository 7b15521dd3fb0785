package hosttest

import (
	"strings"
	"testing"
	"time"

	"honeysens.org/dockersensor/shared/nettest"
)

// Outer interfaces of the hosts that NewHosts makes, and their addresses.
const (
	Iface      = "eth0"
	HostV4     = "192.0.2.1"
	HostV6     = "2001:db8::1"
	AttackerV4 = "192.0.2.2"
	AttackerV6 = "2001:db8::2"
)

// NewHosts makes a host and an attacker next to it. Nothing changes there by
// itself, such as addresses that are tentative for a second.
func NewHosts(t testing.TB) (host, attacker *nettest.Host) {
	t.Helper()
	nettest.Need(t, "ip", "nft", "sysctl")
	host, attacker = nettest.NewHost(t, "host"), nettest.NewHost(t, "attacker")
	for _, h := range []*nettest.Host{host, attacker} {
		h.Run("sysctl", "-qw", "net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0")
	}
	nettest.Connect(host, Iface, []string{HostV4 + "/24", HostV6 + "/64"}, attacker, Iface, []string{AttackerV4 + "/24", AttackerV6 + "/64"})
	waitUntilSettled(t, host)
	return host, attacker
}

// waitUntilSettled waits until the kernel has noted that the other end is up
// and has the addresses in force, so that nothing changes between two
// snapshots.
func waitUntilSettled(t testing.TB, h *nettest.Host) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range 500 {
		if settled(h) {
			return
		}
		<-tick.C
	}
	t.Fatalf("%s does not come up", Iface)
}

func settled(h *nettest.Host) bool {
	addresses := h.Run("ip", "-6", "addr", "show", "dev", Iface)
	routes := h.Run("ip", "-6", "route", "show", "table", "local", "dev", Iface)
	return strings.Contains(h.Run("ip", "-o", "link", "show", "dev", Iface), " state UP ") &&
		strings.Contains(addresses, "fe80:") && !strings.Contains(addresses, "tentative") &&
		strings.Contains(routes, "local "+HostV6) && strings.Contains(routes, "local fe80:")
}

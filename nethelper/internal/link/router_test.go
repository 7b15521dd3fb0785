package link

import (
	"context"
	"net"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"honeysens.org/dockersensor/nethelper/internal/hosttest"
	"honeysens.org/dockersensor/nethelper/internal/nft"
	"honeysens.org/dockersensor/nethelper/internal/ruleset"
	"honeysens.org/dockersensor/shared/helperapi"
	"honeysens.org/dockersensor/shared/nettest"
)

// TestNetnsGlobalIPv6SwitchOpensNothing: kernels before 6.17 can only switch
// IPv6 forwarding on for all interfaces. A host that was no router must not
// become one, neither for attackers nor between its other networks.
func TestNetnsGlobalIPv6SwitchOpensNothing(t *testing.T) {
	host, attacker := hosttest.NewHosts(t)
	one, two := nettest.NewHost(t, "one"), nettest.NewHost(t, "two")
	for _, h := range []*nettest.Host{one, two} {
		// Neighbour discovery uses link-local addresses.
		h.Run("sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0")
	}
	nettest.Connect(one, "eth0", []string{"fd01::2/64"}, host, "one0", []string{"fd01::1/64"})
	nettest.Connect(two, "eth0", []string{"fd02::2/64"}, host, "two0", []string{"fd02::1/64"})
	one.Run("ip", "-6", "route", "add", "default", "via", "fd01::1")
	two.Run("ip", "-6", "route", "add", "default", "via", "fd02::1")
	attacker.Run("ip", "-6", "route", "add", "fd00::/8", "via", hosttest.HostV6)
	listen(t, two, "[fd02::2]:80")
	listen(t, attacker, "["+hosttest.AttackerV6+"]:80")
	ways := map[string]func() bool{
		"from the attacker":         func() bool { return connects(attacker, "[fd02::2]:80") },
		"to the attacker":           func() bool { return connects(one, "["+hosttest.AttackerV6+"]:80") },
		"between two of the host's": func() bool { return connects(one, "[fd02::2]:80") },
	}
	b := New(idA, hosttest.Iface)
	b.oldKernel = true
	want := layout(idA, "10.10.10.0/24")
	var standing Forwarding
	do(t, host, func() (err error) { standing, err = b.Ensure(want); return err })
	for way, open := range ways {
		if !open() {
			t.Errorf("%s: the switch does not open it, so there is nothing to see", way)
		}
	}
	table, err := nft.Open(zaptest.NewLogger(t), nft.Config{NetNS: host.Fd()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = table.Close() })
	rules, err := ruleset.New(ruleset.Config{
		SensorID: idA, Iface: hosttest.Iface, Bridge: want.Name, V4: want.V4, V6: want.V6, GatewayV4: want.GatewayV4, GatewayV6: want.GatewayV6,
		CollectorPort: 5556, HostPorts: helperapi.HostPortsProtect, Egress: helperapi.EgressDeny,
		ForwardingWasOffV4: standing.WasOffV4, ForwardingWasOffV6: standing.WasOffV6, ForwardingAllV6: standing.AllV6,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := table.Apply(t.Context(), rules); err != nil {
		t.Fatal(err)
	}
	for way, open := range ways {
		if open() {
			t.Errorf("%s: the host became a router", way)
		}
	}
}

func listen(t *testing.T, h *nettest.Host, addr string) {
	t.Helper()
	var l net.Listener
	do(t, h, func() (err error) { l, err = net.Listen("tcp", addr); return err })
	t.Cleanup(func() { _ = l.Close() })
}

// connects tells whether a connection comes about in a moment.
func connects(h *nettest.Host, addr string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 400*time.Millisecond)
	defer cancel()
	return h.Do(func() error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		if err == nil {
			_ = conn.Close()
		}
		return err
	}) == nil
}

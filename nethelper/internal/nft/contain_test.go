package nft

import (
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"honeysens.org/dockersensor/nethelper/internal/ruleset"
	"honeysens.org/dockersensor/shared/helperapi"
	"honeysens.org/dockersensor/shared/nettest"
)

// TestNetnsServicesReach is what a service gets an answer from, by policy.
func TestNetnsServicesReach(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	for _, addr := range []string{"0.0.0.0:5556", "[::]:5556", "0.0.0.0:22", "[::]:22"} {
		serve(t, l.host, "tcp", addr, "host")
	}
	for _, addr := range []string{"0.0.0.0:5556", "[::]:5556"} {
		serve(t, l.host, "udp", addr, "host")
	}
	for _, addr := range []string{"0.0.0.0:443", "[::]:443"} {
		serve(t, l.attacker, "tcp", addr, "out")
	}
	tests := []struct {
		network, addr string
		// answers by policy: deny, internet, all
		deny, internet, all string
	}{
		{"tcp", "10.10.10.1:5556", "host 10.10.10.2", "host 10.10.10.2", "host 10.10.10.2"},
		{"tcp", "[fd12::1]:5556", "host fd12::2", "host fd12::2", "host fd12::2"},
		{"udp", "10.10.10.1:5556", "", "", ""},
		{"tcp", "10.10.10.1:22", "", "", ""},
		{"tcp", "[fd12::1]:22", "", "", ""},
		{"tcp", at(host4, 5556), "", "", ""},
		{"tcp", at(host6, 22), "", "", ""},
		{"tcp", at(attacker4, 443), "", "", "out " + host4},
		{"tcp", at(attacker6, 443), "", "", "out " + host6},
		{"tcp", at(public4, 443), "", "out " + host4, "out " + host4},
		{"tcp", at(public6, 443), "", "out " + host6, "out " + host6},
	}
	for _, egress := range []helperapi.Egress{helperapi.EgressDeny, helperapi.EgressInternet, helperapi.EgressAll} {
		l.up(t, func(c *ruleset.Config) { c.Egress = egress })
		for _, test := range tests {
			t.Run(string(egress)+" "+test.network+" "+test.addr, func(t *testing.T) {
				answer := map[helperapi.Egress]string{helperapi.EgressDeny: test.deny, helperapi.EgressInternet: test.internet, helperapi.EgressAll: test.all}[egress]
				from := "10.10.10.2"
				if test.addr[0] == '[' {
					from = "fd12::2"
				}
				if answer == "" {
					l.wantRefused(t, test.network, from, test.addr)
					return
				}
				before := l.refused(t)
				got, err := askFrom(t.Context(), l.service, test.network, from, test.addr)
				if got != answer || l.refused(t) != before {
					t.Errorf("answers %q (%v), want %q and nothing refused", got, err, answer)
				}
			})
		}
	}
}

func TestNetnsInventedSourcesAreDropped(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.up(t, func(c *ruleset.Config) { c.Egress = helperapi.EgressAll })
	l.service.Run("ip", "addr", "add", "10.10.10.77/24", "dev", "eth0")
	l.service.Run("ip", "addr", "add", "fd12::77/64", "dev", "eth0", "nodad")
	for _, f := range []struct{ from, gateway, outside string }{{"10.10.10.77", "10.10.10.1", attacker4}, {"fd12::77", "fd12::1", attacker6}} {
		l.wantRefused(t, "tcp", f.from, at(f.gateway, 5556))
		l.wantRefused(t, "tcp", f.from, at(f.outside, 443))
	}
}

// TestNetnsOnlyAttemptsAreRefused: what an idle machine sends, and what is left
// of connections, goes nowhere and is not held against a service.
func TestNetnsOnlyAttemptsAreRefused(t *testing.T) {
	t.Parallel()
	const ack = 16
	l := newLab(t)
	l.up(t, nil)
	before := l.refused(t)
	packets := []struct {
		to    string
		proto int
		data  []byte
	}{
		{attacker4, unix.IPPROTO_ICMP, []byte{0, 0, 0xff, 0xfd, 0, 1, 0, 1}},
		{"10.10.10.1", unix.IPPROTO_ICMP, []byte{0, 0, 0xff, 0xfd, 0, 1, 0, 1}},
		{"10.10.10.1", unix.IPPROTO_IGMP, []byte{0x16, 0, 0x09, 0xfe, 224, 0, 0, 1}},
		{"fd12::1", unix.IPPROTO_ICMPV6, []byte{133, 0, 0, 0, 0, 0, 0, 0}},
	}
	for _, p := range packets {
		if err := sendRaw(l.service, netip.MustParseAddr(p.to), p.proto, p.data); err != nil {
			t.Fatal(err)
		}
	}
	for _, to := range []string{attacker4, "10.10.10.1"} {
		if err := sendTCP(l.service, "10.10.10.2", to, 4000, 443, ack, "late"); err != nil {
			t.Fatal(err)
		}
	}
	l.wantRefused(t, "udp", "10.10.10.2", "10.10.10.1:9")
	if n := l.refused(t) - before; n != 1 {
		t.Errorf("%d packets were refused, want the one attempt", n)
	}
}

// TestNetnsServicesReachNoOther: neither another service, by the cable or by the
// host, nor other bridges of the host and who is there.
func TestNetnsServicesReachNoOther(t *testing.T) {
	t.Parallel()
	c := newCables(t)
	c.isolate()
	other := nettest.NewHost(t, "other")
	nettest.Connect(other, "eth0", []string{"172.17.0.2/16", "fd17::2/64"}, c.host, "docker0", []string{"172.17.0.1/16", "fd17::1/64"})
	other.Run("ip", "route", "add", "default", "via", "172.17.0.1")
	other.Run("ip", "-6", "route", "add", "default", "via", "fd17::1")
	for _, h := range []*nettest.Host{c.two, other, c.host} {
		serve(t, h, "tcp", "0.0.0.0:80", "reached")
		serve(t, h, "tcp", "[::]:80", "reached")
	}
	neighbours := []string{"10.10.10.3:80", "[fd12::3]:80"}
	bridges := []string{"172.17.0.1:80", "[fd17::1]:80"}
	containers := []string{"172.17.0.2:80", "[fd17::2]:80"}
	for _, egress := range []helperapi.Egress{helperapi.EgressDeny, helperapi.EgressInternet, helperapi.EgressAll} {
		c.up(t, func(cfg *ruleset.Config) { cfg.Egress = egress })
		for _, addr := range neighbours {
			want(t, c.one, "tcp", addr, "")
		}
		// By the host, which would pass it on.
		c.one.Run("ip", "neigh", "replace", "10.10.10.3", "lladdr", c.mac["svc0"].String(), "dev", "eth0", "nud", "permanent")
		c.one.Run("ip", "neigh", "replace", "fd12::3", "lladdr", c.mac["svc0"].String(), "dev", "eth0", "nud", "permanent")
		refused := slices.Concat(neighbours, bridges)
		if egress != helperapi.EgressAll {
			refused = append(refused, containers...)
		}
		for _, addr := range refused {
			before := c.observe(t, "one").Refused.Packets
			want(t, c.one, "tcp", addr, "")
			if n := c.observe(t, "one").Refused.Packets - before; n == 0 {
				t.Errorf("%s, %s: not counted", egress, addr)
			}
		}
		c.one.Run("ip", "neigh", "flush", "all", "nud", "permanent")
	}
	for i, addr := range containers {
		want(t, c.one, "tcp", addr, "reached "+[]string{"172.17.0.1", "fd17::1"}[i])
	}
}

func TestNetnsNobodyReachesAServiceDirectly(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.services(t)
	l.up(t, nil)
	for _, addr := range []string{"10.10.10.3:80", "[fd12::3]:80"} {
		want(t, l.attacker, "tcp", addr, "")
	}
	want(t, l.host, "tcp", "10.10.10.3:80", "two 10.10.10.1")
	other := nettest.NewHost(t, "other")
	nettest.Connect(other, "eth0", []string{"172.17.0.2/16"}, l.host, "docker0", []string{"172.17.0.1/16"})
	other.Run("ip", "route", "add", "default", "via", "172.17.0.1")
	want(t, other, "tcp", "10.10.10.3:80", "")
	want(t, l.attacker, "tcp", at(host4, 80), "two "+attacker4)
}

// TestNetnsHostIsNoRouter: forwarding that the sensor has switched on is for
// its services only.
func TestNetnsHostIsNoRouter(t *testing.T) {
	t.Parallel()
	for off, answer := range map[bool]string{true: "", false: "inner "} {
		l := newLab(t)
		inner := nettest.NewHost(t, "inner")
		nettest.Connect(inner, "eth0", []string{"172.17.0.2/16", "fd17::2/64"}, l.host, "in0", []string{"172.17.0.1/16", "fd17::1/64"})
		inner.Run("ip", "route", "add", "default", "via", "172.17.0.1")
		inner.Run("ip", "-6", "route", "add", "default", "via", "fd17::1")
		serve(t, inner, "tcp", "0.0.0.0:80", "inner")
		serve(t, inner, "tcp", "[::]:80", "inner")
		serve(t, l.attacker, "tcp", "0.0.0.0:80", "outer")
		l.up(t, func(c *ruleset.Config) { c.ForwardingWasOffV4, c.ForwardingWasOffV6 = off, off })
		for _, f := range []struct{ addr, from string }{{"172.17.0.2:80", attacker4}, {"[fd17::2]:80", attacker6}} {
			expect := answer
			if expect != "" {
				expect += f.from
			}
			want(t, l.attacker, "tcp", f.addr, expect)
		}
		want(t, inner, "tcp", at(attacker4, 80), "outer 172.17.0.2")
	}
}

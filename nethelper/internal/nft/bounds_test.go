package nft

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"honeysens.org/dockersensor/nethelper/internal/ruleset"
)

func contextFor(t *testing.T, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), d)
}

// TestNetnsNewConnectionsAreBounded: those that attackers open and those that a
// service begins, in both families.
func TestNetnsNewConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	const rate, many = 5, 60
	l := newLab(t)
	l.services(t)
	for _, addr := range []string{"0.0.0.0:5556", "[::]:5556"} {
		serve(t, l.host, "tcp", addr, "collector")
	}
	l.up(t, func(c *ruleset.Config) { c.Bounds = ruleset.Bounds{Opened: rate, Begun: rate} })
	for _, host := range []string{host4, host6} {
		before := l.observe(t, "one").Bounded.Packets
		if n := together(t, l.attacker, many, "tcp", "", at(host, 22)); n < rate || n > many/2 {
			t.Errorf("%s: %d of %d connections at once, want some %d", host, n, many, 2*rate)
		}
		if n := l.observe(t, "one").Bounded.Packets - before; n < many/2 {
			t.Errorf("%s: %d above the bound, want most of %d", host, n, many)
		}
	}
	for from, gateway := range map[string]string{"10.10.10.3": "10.10.10.1", "fd12::3": "fd12::1"} {
		before := l.observe(t, "two").Bounded.Packets
		if n := together(t, l.service, many, "tcp", from, at(gateway, 5556)); n < rate || n > many/2 {
			t.Errorf("%s: %d of %d reports at once, want some %d", from, n, many, 2*rate)
		}
		if n := l.observe(t, "two").Bounded.Packets - before; n < many/2 {
			t.Errorf("%s: %d above the bound, want most of %d", from, n, many)
		}
	}
	// Nobody else pays, and it is over as soon as the flood is.
	want(t, l.attacker, "tcp", at(host4, 80), "two "+attacker4)
	until(t, "the service answers again", func() bool {
		got, _ := ask(l.attacker, "tcp", at(host4, 22))
		return got == "one "+attacker4
	})
}

// TestNetnsConntrackIsShared: a service has its part of the table of connections,
// and one that has ended is none.
func TestNetnsConntrackIsShared(t *testing.T) {
	t.Parallel()
	// The kernel looks for what has ended once for eight new ones.
	// Connections that come at the same moment may be a few more.
	const share, many = 40, 100
	l := newLab(t)
	l.services(t)
	l.up(t, func(c *ruleset.Config) { c.Bounds.Tracked = share })
	for _, host := range []string{host4, host6} {
		for i := range many {
			if got, err := ask(l.attacker, "tcp", at(host, 22)); !strings.HasPrefix(got, "one ") {
				t.Fatalf("%s: connection %d one after the other: %q, %v", host, i, got, err)
			}
		}
		if n := together(t, l.attacker, many, "udp", "", at(host, 53)); n < share/2 || n > share+share/4 {
			t.Errorf("%s: %d of %d at once, want %d", host, n, many, share)
		}
		family := "ipv4"
		if strings.Contains(host, ":") {
			family = "ipv6"
		}
		if n := strings.Count(l.host.Run("conntrack", "-L", "-f", family, "-p", "udp", "--orig-port-dst", "53"), "dport=53"); n > share+share/4 {
			t.Errorf("%s: %d entries, want %d", host, n, share)
		}
		want(t, l.attacker, "udp", at(host, 80), "two "+map[string]string{host4: attacker4, host6: attacker6}[host])
		if n := l.observe(t, "one").Bounded.Packets; n < many/2 {
			t.Errorf("%s: %d above the bound", host, n)
		}
	}
}

// TestNetnsPacketsAreBounded: within one connection, to a service and from it.
func TestNetnsPacketsAreBounded(t *testing.T) {
	t.Parallel()
	const rate, flood = 20, 1000
	c := newCables(t)
	serve(t, c.one, "udp", "10.10.10.2:2053", "one")
	serve(t, c.two, "udp", "10.10.10.3:80", "two")
	c.up(t, func(cfg *ruleset.Config) { cfg.Bounds.Packets = rate })
	want(t, c.attacker, "udp", at(host4, 53), "one "+attacker4)
	c.flood(t, flood)
	to := c.observe(t, "one").Bounded.Packets
	if to < flood/2 {
		t.Errorf("%d packets to a service were above the bound, want most of %d", to, flood)
	}
	sender := packetSocket(t, c.one, "eth0")
	frame := udpFrame(c.mac["one"], c.mac["svc0"], "10.10.10.2", "10.10.10.1", 1000, 9)
	for range flood {
		if err := writeFrame(sender, frame); err != nil {
			t.Fatal(err)
		}
	}
	if from := c.observe(t, "one").Bounded.Packets - to; from < flood/2 {
		t.Errorf("%d packets from a service were above the bound, want most of %d", from, flood)
	}
	if n := c.observe(t, "two").Bounded.Packets; n != 0 {
		t.Errorf("%d packets of the other service are above the bound", n)
	}
	want(t, c.attacker, "udp", at(host4, 80), "two "+attacker4)
	until(t, "the service answers again", func() bool {
		got, _ := ask(c.attacker, "udp", at(host4, 53))
		return got == "one "+attacker4
	})
}

// flood sends packets of one connection to service one.
func (c *cables) flood(t *testing.T, n int) {
	t.Helper()
	err := c.attacker.Do(func() error {
		conn, err := net.Dial("udp", at(host4, 53))
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		for range n {
			if _, err := conn.Write([]byte("x")); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

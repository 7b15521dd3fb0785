package nft

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"honeysens.org/dockersensor/nethelper/internal/ruleset"
	"honeysens.org/dockersensor/shared/nettest"
)

// lateFlows is how many connections of the host each case has.
const lateFlows = 50

// tally says where the packets of a case went.
type tally struct{ arrived, host, honeypot int }

// TestNetnsNoFalseEvents sends late packets of the host's own connections. With
// the rules of the sensor all of them reach the host. With one rule that leads
// everything to the catch-all, as the sensor in Python had it, they reach the
// honeypot, or nobody: so each case can fail.
func TestNetnsNoFalseEvents(t *testing.T) {
	t.Parallel()
	nettest.Need(t, "iptables-nft", "ip6tables-nft", "conntrack")
	var (
		mu     sync.Mutex
		report = map[string]map[string]tally{"sensor": {}, "one rule": {}}
	)
	t.Cleanup(func() { t.Log(tabulate(report)) })
	for rules := range report {
		for _, family := range []string{"v4", "v6"} {
			t.Run(rules+", "+family, func(t *testing.T) {
				t.Parallel()
				l := newLab(t)
				if rules == "sensor" {
					l.up(t, func(c *ruleset.Config) { c.ForwardingWasOffV4, c.ForwardingWasOffV6 = true, true })
				} else {
					l.host.Run("iptables-nft", "-t", "nat", "-A", "PREROUTING", "-i", "eth0", "-j", "DNAT", "--to-destination", "10.10.10.3")
					l.host.Run("ip6tables-nft", "-t", "nat", "-A", "PREROUTING", "-i", "eth0", "-p", "tcp", "-j", "DNAT", "--to-destination", "fd12::3")
					l.host.Run("ip6tables-nft", "-t", "nat", "-A", "PREROUTING", "-i", "eth0", "-p", "udp", "-j", "DNAT", "--to-destination", "fd12::3")
				}
				for i, c := range lateCases() {
					got := runLate(t, l, c, family, uint16(40000+i), rules == "sensor")
					checkLate(t, c, rules, got)
					mu.Lock()
					report[rules][c.name+", "+family] = got
					mu.Unlock()
				}
			})
		}
	}
}

func checkLate(t *testing.T, c lateCase, rules string, got tally) {
	t.Helper()
	if got.arrived < lateFlows {
		t.Errorf("%s: only %d packets of %d flows arrived", c.name, got.arrived, lateFlows)
	}
	switch {
	case rules == "sensor":
		if got.honeypot != 0 || got.host != got.arrived {
			t.Errorf("%s: %d packets arrived, %d at the host and %d at the honeypot", c.name, got.arrived, got.host, got.honeypot)
		}
	case c.many:
		if got.host != 0 {
			t.Errorf("%s: %d packets at the host: this case shows nothing", c.name, got.host)
		}
	case got.honeypot < lateFlows:
		t.Errorf("%s: %d packets arrived, only %d at the honeypot: this case shows nothing", c.name, got.arrived, got.honeypot)
	}
}

func tabulate(report map[string]map[string]tally) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%-52s %8s | %6s %8s | %6s %8s", "packets of the host's own connections", "arrived", "host", "honeypot", "host", "honeypot, one rule")
	for _, c := range lateCases() {
		for _, family := range []string{"v4", "v6"} {
			name := c.name + ", " + family
			ours, theirs := report["sensor"][name], report["one rule"][name]
			fmt.Fprintf(&b, "\n%-52s %8d | %6d %8d | %6d %8d", name, ours.arrived, ours.host, ours.honeypot, theirs.host, theirs.honeypot)
		}
	}
	return b.String()
}

// lateCase prepares flows and returns what sends the late packets.
type lateCase struct {
	name    string
	prepare func(f *flows) (late func() error)
	// many: the packets are for many, and the kernel does not forward such.
	many bool
}

func lateCases() []lateCase {
	return []lateCase{
		{name: "UDP answer, entry expired, program waits", prepare: func(f *flows) func() error { return f.udp("192.0.2.2", f.expired, true) }},
		{name: "UDP answer, entry expired, program gone", prepare: func(f *flows) func() error { return f.udp("192.0.2.2", f.expired, false) }},
		{name: "UDP answer, entry deleted", prepare: func(f *flows) func() error { return f.udp("192.0.2.2", f.deleted, false) }},
		{name: "UDP answer to a multicast question", prepare: func(f *flows) func() error { return f.udp("224.0.0.251", f.deleted, false) }},
		{name: "UDP to a multicast group", prepare: func(f *flows) func() error { return f.announce("224.0.0.251", "ff02::fb", f.port, 5353) }, many: true},
		{name: "UDP to everybody", prepare: func(f *flows) func() error { return f.announce("192.0.2.255", "ff02::1", f.port, 137) }, many: true},
		{name: "answer of a DHCP server", prepare: (*flows).dhcp},
		{name: "TCP data, entry expired", prepare: func(f *flows) func() error { return f.tcpData(f.expired) }},
		{name: "TCP data, entry deleted", prepare: func(f *flows) func() error { return f.tcpData(f.deleted) }},
		{name: "TCP keep-alive probe", prepare: (*flows).tcpKeepAlive},
		{name: "TCP retransmission", prepare: (*flows).tcpRetransmission},
		{name: "TCP ACK after both sides closed", prepare: (*flows).tcpAfterwards},
	}
}

// runLate waits until packets of all flows have arrived somewhere: with the rules of
// the sensor every single one, with one rule enough of them to show where they go.
func runLate(t *testing.T, l *lab, c lateCase, family string, port uint16, every bool) tally {
	t.Helper()
	f := &flows{t: t, lab: l, port: port, host: host4, peer: attacker4, family: "ipv4"}
	if family == "v6" {
		f.host, f.peer, f.family = host6, attacker6, "ipv6"
	}
	defer f.end()
	late := c.prepare(f)
	f.count()
	if err := late(); err != nil {
		t.Fatalf("%s: %v", c.name, err)
	}
	var got tally
	until(t, c.name+": all packets have arrived somewhere", func() bool {
		got = f.tally()
		enough := lateFlows
		switch {
		case every:
			enough = got.arrived
		case c.many:
			enough = 0
		}
		return got.arrived >= lateFlows && got.host+got.honeypot >= enough
	})
	return got
}

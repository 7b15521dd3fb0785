package doctor

import (
	"net/netip"
	"strings"
	"testing"

	"honeysens.org/dockersensor/shared/helperapi"
	"honeysens.org/dockersensor/shared/version"
)

func TestInterface(t *testing.T) {
	links := []link{
		{name: "lo", up: true, loopback: true, addresses: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8")}},
		{name: "eth0", up: true, addresses: []netip.Prefix{netip.MustParsePrefix("fe80::1/64"), netip.MustParsePrefix("192.0.2.2/24")}},
		{name: "eth1", up: true, addresses: []netip.Prefix{netip.MustParsePrefix("fe80::2/64")}},
		{name: "eth2", addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.3/24")}},
	}
	tests := []struct {
		name, iface string
		later       bool
		want        want
	}{
		{"good", "eth0", false, want{"interface", OK, "eth0 has 192.0.2.2/24"}},
		{"none named", "", false, want{"interface", Problem, "reach: eth0, eth1, eth2"}},
		{"misspelt", "eht0", false, want{"interface", Problem, `no interface "eht0"`}},
		{"loopback", "lo", true, want{"interface", Problem, "this host alone"}},
		{"no address", "eth1", false, want{"interface", Problem, "no address that others reach"}},
		{"address by the sensor", "eth1", true, want{"interface", Note, "no address yet"}},
		{"down", "eth2", false, want{"interface", Problem, "ip link set dev eth2 up"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			expect(t, []Finding{judgeInterface(test.iface, links, test.later)}, test.want)
		})
	}
	expect(t, []Finding{judgeInterface("eth0", links[:1], false)}, want{"interface", Problem, "there is none yet"})
}

func TestListener(t *testing.T) {
	tests := []struct {
		name, line string
		port       uint16
	}{
		{"listens", "0: 00000000:0016 00000000:0000 0A 0", 22},
		{"listens at an address that ends in 127", "0: 7F0200C0:0016 00000000:0000 0A 0", 22},
		{"loopback", "0: 0100007F:0016 00000000:0000 0A 0", 0},
		{"connected", "0: 00000000:0016 00000000:0000 01 0", 0},
		{"header", strings.TrimSpace(header), 0},
		{"no address", "0: zz:0016 00000000:0000 0A 0", 0},
		{"short address", "0: 0000:0016 00000000:0000 0A 0", 0},
		{"port too large", "0: 00000000:10016 00000000:0000 0A 0", 0},
		{"empty", "", 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if port, ok := listener(test.line, "0A"); port != test.port && (ok || test.port != 0) || ok != (test.port != 0) {
				t.Errorf("port %d, %v", port, ok)
			}
		})
	}
}

func TestHelper(t *testing.T) {
	ssh := helperapi.Conflict{Port: helperapi.Port{Protocol: helperapi.TCP, Number: 22}, Service: "7", Winner: "host", Reason: "sshd listens on it"}
	many := make([]helperapi.Conflict, maxShown+5)
	for i := range many {
		many[i] = ssh
	}
	const nothing, free = "none of the host's drops forwarded traffic", "no service wants a port"
	tests := []struct {
		name     string
		observed helperapi.Observed
		running  *Running
		wants    []want
	}{
		{"good", helperapi.Observed{Applied: true}, nil,
			[]want{{"network", OK, "0 services"}, {"firewall", OK, nothing}, {"ports", OK, free}}},
		{"no rules yet", helperapi.Observed{}, nil,
			[]want{{"network", Problem, "no rules"}, {"firewall", OK, nothing}, {"ports", OK, free}}},
		{"refused by the helper", helperapi.Observed{Applied: true}, &Running{NetworkError: "no such bridge"},
			[]want{{"network", Problem, "no such bridge"}, {"firewall", OK, nothing}, {"ports", OK, free}}},
		{"no DHCP", helperapi.Observed{Applied: true, Interface: helperapi.InterfaceObserved{Name: "eth0", Problem: "no answer of a DHCP server"}}, nil,
			[]want{{"network", Problem, "eth0: no answer"}, {"firewall", OK, nothing}, {"ports", OK, free}}},
		{"healed", helperapi.Observed{Applied: true, Heals: 3}, nil,
			[]want{{"network", OK, ""}, {"network", Note, "repaired 3 times"}, {"firewall", OK, nothing}, {"ports", OK, free}}},
		{"containment", helperapi.Observed{Applied: true, Lacks: []string{"the kernel cannot count"}, Services: []helperapi.ServiceObserved{
			{ID: "7", Refused: helperapi.Counter{Packets: 2}, Forged: helperapi.Counter{Packets: 1}, Bounded: helperapi.Counter{Packets: 9}}}}, nil,
			[]want{{"network", OK, "1 services"}, {"containment", Note, "cannot count"}, {"containment", Note, "service 7 was stopped 3 times"},
				{"containment", Note, "9 packets"}, {"firewall", OK, nothing}, {"ports", OK, free}}},
		{"firewalls", helperapi.Observed{Applied: true, Firewalls: []helperapi.Firewall{
			{Kind: "iptables-nft", Passage: "a rule in DOCKER-USER"}, {Kind: "iptables-legacy", Problem: "its program is missing"}}}, nil,
			[]want{{"network", OK, ""}, {"firewall", OK, "DOCKER-USER"}, {"firewall", Problem, "its program is missing"}, {"ports", OK, free}}},
		{"conflict", helperapi.Observed{Applied: true, Conflicts: []helperapi.Conflict{ssh}}, nil,
			[]want{{"network", OK, ""}, {"firewall", OK, nothing}, {"ports", Note, "22/tcp wanted by service 7 goes to the host: sshd"}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d := New(Config{}, nil, helper{version: version.Revision, observed: test.observed})
			d.running = test.running
			d.examineHelper(t.Context())
			expect(t, d.findings, append([]want{{"helper", OK, ""}}, test.wants...)...)
		})
	}
	t.Run("many conflicts", func(t *testing.T) {
		d := alone(Config{})
		d.judgeConflicts(many)
		if len(d.findings) != maxShown+1 || !strings.HasPrefix(d.findings[maxShown].Text, "5 more") {
			t.Errorf("%d findings: %+v", len(d.findings), d.findings)
		}
	})
}

func TestOtherHelper(t *testing.T) {
	d := New(Config{}, nil, helper{version: "0.9", observed: helperapi.Observed{Applied: true}})
	d.examineHelper(t.Context())
	expect(t, d.findings, want{"helper", Note, "restart the container"}, want{"network", OK, ""}, want{"firewall", OK, ""}, want{"ports", OK, ""})
}

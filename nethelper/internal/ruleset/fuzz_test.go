package ruleset

import (
	"net/netip"
	"strings"
	"testing"

	"honeysens.org/dockersensor/shared/helperapi"
)

// FuzzNew translates whatever an attacker with the manager's rights can vary.
// What is not refused must be a table in which every line is one of the
// translator's own: no name ends a word, a string, a comment or a line early.
func FuzzNew(f *testing.F) {
	f.Add("eth0", "services-a1b2c3", "1", "tcp", "deny", "protect", []byte{10, 10, 10, 0, 24}, []byte{0, 22, 8, 174, 0, 80, 0, 80}, uint16(5556), true)
	f.Add("eth0.100", "br-1", "a_b-c", "udp", "internet", "assigned", []byte{172, 16, 0, 0, 16}, []byte{255, 255, 0, 1}, uint16(1), false)
	f.Add(`e" drop`, "services}", "1\n", "sctp", "all", "assigned", []byte{0, 0, 0, 0, 0}, []byte{0, 0, 0, 0}, uint16(0), true)
	f.Add("eth*", "*", "x y; flush ruleset", "tcp", "", "", []byte{255, 255, 255, 255, 32}, []byte{}, uint16(65535), false)
	f.Fuzz(func(t *testing.T, iface, bridge, id, protocol, egress, hostPorts string, network, ports []byte, collector uint16, catchAll bool) {
		cfg, ok := fuzzed(network, ports, protocol)
		if !ok {
			return
		}
		cfg.Iface, cfg.Bridge, cfg.CollectorPort = iface, bridge, collector
		cfg.Egress, cfg.HostPorts = helperapi.Egress(egress), helperapi.HostPorts(hostPorts)
		cfg.Services[0].ID, cfg.Services[0].CatchAll = id, catchAll
		table, err := New(cfg)
		if err != nil {
			return
		}
		wantPlain(t, cfg, table)
	})
}

// fuzzed has one service with the addresses after the gateway's, and every two
// bytes of ports as an assignment by turns.
func fuzzed(network, ports []byte, protocol string) (Config, bool) {
	if len(network) < 5 || len(ports) > 4096 {
		return Config{}, false
	}
	v4 := netip.PrefixFrom(netip.AddrFrom4([4]byte(network)), int(network[4])%33).Masked()
	v6 := netip.MustParsePrefix("fd12:3456:789a:1::/64")
	svc := Service{ID: "1", Port: "veth1", MAC: mac(network[0]), V4: v4.Addr().Next().Next(), V6: v6.Addr().Next().Next()}
	for ; len(ports) >= 4; ports = ports[4:] {
		svc.Ports = append(svc.Ports, helperapi.Assignment{
			Port: helperapi.Port{Protocol: helperapi.Protocol(protocol), Number: uint16(ports[0])<<8 | uint16(ports[1])},
			To:   uint16(ports[2])<<8 | uint16(ports[3]),
		})
	}
	return Config{
		SensorID: strings.Repeat("a1b2c3d4", 8), V4: v4, V6: v6, GatewayV4: v4.Addr().Next(), GatewayV6: v6.Addr().Next(),
		Services: []Service{svc},
	}, true
}

func wantPlain(t *testing.T, cfg Config, table *Table) {
	t.Helper()
	if len(cfg.Iface) > 15 || len(cfg.Bridge) > 15 || strings.ContainsAny(cfg.Iface+cfg.Bridge, "\"\\\n\r\t *{};#/") {
		t.Fatalf("interface names %q and %q were taken", cfg.Iface, cfg.Bridge)
	}
	// The same state with names that nobody chose has as many lines.
	cfg.Iface, cfg.Bridge, cfg.Services = "eth0", "services-a1b2c3", []Service{cfg.Services[0]}
	cfg.Services[0].ID = "1"
	plain, err := New(cfg)
	if err != nil {
		t.Fatalf("refused with plain names only: %v", err)
	}
	text := table.Text()
	if got, lines := strings.Count(text, "\n"), strings.Count(plain.Text(), "\n"); got != lines {
		t.Errorf("%d lines, with plain names %d:\n%s", got, lines, text)
	}
	for _, mark := range []string{`"`, "{", "}", ";", "#"} {
		if strings.Count(text, mark) != strings.Count(plain.Text(), mark) {
			t.Errorf("another number of %s than with plain names:\n%s", mark, text)
		}
	}
	if !strings.Contains(text, "table inet "+table.Name+" {") || !strings.Contains(text, "table bridge "+table.Name+" {") {
		t.Errorf("no table %s in\n%s", table.Name, text)
	}
}

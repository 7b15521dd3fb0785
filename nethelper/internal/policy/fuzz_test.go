package policy

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"net/netip"
	"testing"

	"honeysens.org/dockersensor/shared/helperapi"
)

// FuzzCheck takes a request and the networks of a host, nine bytes each, and
// holds what passes against the promises of the package.
func FuzzCheck(f *testing.F) {
	uses := []byte{
		192, 0, 2, 0, 24, 1, 1, 0, 0,
		0, 0, 0, 0, 0, 1, 0, 0, 0,
		172, 17, 0, 0, 16, 2, 1, 0, 0,
		10, 10, 10, 0, 25, 2, 0, 0, 0,
	}
	for _, request := range []string{
		`{"interface":{"name":"eth0","mode":"none"},"bridge":{"v4":"10.10.10.0/24","collector_port":5556},"egress":"deny"}`,
		`{"interface":{"name":"eth1","mode":"none"},"bridge":{"v4":"10.10.10.0/24","collector_port":5556},"egress":"deny"}`,
		`{"interface":{"name":"eth0","mode":"dhcp"},"bridge":{"v4":"172.17.1.0/24","v6":"fd12::/64","collector_port":1},"egress":"internet"}`,
		`{"interface":{"name":"eth0","mode":"static","address":"10.10.10.7/8"},"bridge":{"v4":"10.0.0.0/16","collector_port":1},"egress":"all"}`,
		`{"interface":{"name":"eth0","mode":"none"},"bridge":{"v4":"0.0.0.0/0","v6":"::/0","collector_port":1},"egress":"deny"}`,
	} {
		f.Add([]byte(request), uses, "internet")
		f.Add([]byte(request), []byte{}, "deny")
	}
	f.Fuzz(func(t *testing.T, request, host []byte, egress string) {
		n, err := helperapi.DecodeNetwork(request)
		if err != nil {
			return
		}
		allowed, err := ParseEgress(egress)
		if err != nil {
			allowed = helperapi.EgressDeny
		}
		rights, used := Rights{Iface: "eth0", Egress: allowed}, usesOf(host)
		if err := Check(&n, rights, used); err != nil {
			var refused *helperapi.Error
			if !errors.As(err, &refused) || (refused.Kind != helperapi.KindDenied && refused.Kind != helperapi.KindConflict) {
				t.Fatalf("refused with %v, want a kind", err)
			}
			return
		}
		wantPromises(t, n, rights, used)
	})
}

// wantPromises says again, in the plainest words, what the sensor may have.
func wantPromises(t *testing.T, n helperapi.Network, rights Rights, used []Use) {
	t.Helper()
	raw, err := json.Marshal(n)
	if err != nil {
		t.Fatal(err)
	}
	if n.Interface.Name != rights.Iface {
		t.Errorf("foreign interface: %s", raw)
	}
	if n.Egress != rights.Egress && n.Egress != helperapi.EgressDeny && rights.Egress != helperapi.EgressAll {
		t.Errorf("egress %s where %s is allowed: %s", n.Egress, rights.Egress, raw)
	}
	if !n.Bridge.V4.Addr().IsPrivate() || n.Bridge.V4.Bits() < minBits || len(n.Services)+reserved > 1<<(32-n.Bridge.V4.Bits()) {
		t.Errorf("service network: %s", raw)
	}
	if v6 := n.Bridge.V6; v6.IsValid() && (v6.Bits() != bitsV6 || v6.Addr().As16()[0]&0xfe != 0xfc) {
		t.Errorf("service network: %s", raw)
	}
	for _, use := range used {
		for _, network := range []netip.Prefix{n.Bridge.V4, n.Bridge.V6} {
			if use.Direct && network.IsValid() && (use.Net.Contains(network.Addr()) || network.Contains(use.Net.Addr())) {
				t.Errorf("%v at %s is taken: %s", use.Net, use.Link, raw)
			}
		}
	}
}

func usesOf(raw []byte) []Use {
	const size = 9
	var uses []Use
	for ; len(raw) >= size && len(uses) < 64; raw = raw[size:] {
		use := Use{Link: "eth0", Direct: raw[6]&1 != 0}
		if raw[5]&1 == 0 {
			use.Link = "docker0"
		}
		addr, bits := netip.AddrFrom4([4]byte(raw[:4])), int(raw[4])%33
		if raw[7]&1 != 0 {
			var v6 [16]byte
			v6[0] = 0xfd
			binary.BigEndian.PutUint32(v6[4:], binary.BigEndian.Uint32(raw))
			addr, bits = netip.AddrFrom16(v6), int(raw[8])%129
		}
		use.Net = netip.PrefixFrom(addr, bits).Masked()
		uses = append(uses, use)
	}
	return uses
}

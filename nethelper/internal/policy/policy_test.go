package policy

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"honeysens.org/dockersensor/shared/helperapi"
)

func prefix(text string) netip.Prefix { return netip.MustParsePrefix(text) }

func TestCheck(t *testing.T) {
	rights := Rights{Iface: "eth0", Egress: helperapi.EgressInternet}
	host := []Use{
		{Net: prefix("192.0.2.0/24"), Link: "eth0", Direct: true},
		{Net: prefix("0.0.0.0/0"), Link: "eth0"},
		{Net: prefix("::/0"), Link: "eth0"},
		{Net: prefix("172.17.0.0/16"), Link: "docker0", Direct: true},
		{Net: prefix("192.168.0.0/16"), Link: "eth0"},
		{Net: prefix("10.99.0.0/24"), Link: "eth0"},
		{Net: prefix("fd01::/64"), Link: "docker0", Direct: true},
	}
	cases := map[string]struct {
		change func(*helperapi.Network)
		want   helperapi.Kind
	}{
		"plain":            {func(*helperapi.Network) {}, ""},
		"other interface":  {func(n *helperapi.Network) { n.Interface.Name = "eth1" }, helperapi.KindDenied},
		"egress as given":  {func(n *helperapi.Network) { n.Egress = helperapi.EgressInternet }, ""},
		"egress too loose": {func(n *helperapi.Network) { n.Egress = helperapi.EgressAll }, helperapi.KindDenied},
		"egress unknown":   {func(n *helperapi.Network) { n.Egress = "moon" }, helperapi.KindDenied},
		"public network":   {func(n *helperapi.Network) { n.Bridge.V4 = prefix("8.8.8.0/24") }, helperapi.KindDenied},
		"loopback":         {func(n *helperapi.Network) { n.Bridge.V4 = prefix("127.0.0.0/24") }, helperapi.KindDenied},
		"link local":       {func(n *helperapi.Network) { n.Bridge.V4 = prefix("169.254.0.0/24") }, helperapi.KindDenied},
		"too large":        {func(n *helperapi.Network) { n.Bridge.V4 = prefix("10.0.0.0/15") }, helperapi.KindDenied},
		"largest":          {func(n *helperapi.Network) { n.Bridge.V4 = prefix("10.0.0.0/16") }, ""},
		"smallest":         {func(n *helperapi.Network) { n.Bridge.V4 = prefix("10.10.10.8/29") }, ""},
		"too small":        {func(n *helperapi.Network) { n.Bridge.V4 = prefix("10.10.10.8/30") }, helperapi.KindDenied},
		"no room": {func(n *helperapi.Network) {
			n.Bridge.V4 = prefix("10.10.10.8/29")
			n.Services = make([]helperapi.Service, 6)
		}, helperapi.KindDenied},
		"just room": {func(n *helperapi.Network) {
			n.Bridge.V4 = prefix("10.10.10.8/29")
			n.Services = make([]helperapi.Service, 5)
		}, ""},
		"own v6":               {func(n *helperapi.Network) { n.Bridge.V6 = prefix("fd12::/64") }, ""},
		"public v6":            {func(n *helperapi.Network) { n.Bridge.V6 = prefix("2001:db8::/64") }, helperapi.KindDenied},
		"v6 of another size":   {func(n *helperapi.Network) { n.Bridge.V6 = prefix("fd12::/63") }, helperapi.KindDenied},
		"v6 of the host":       {func(n *helperapi.Network) { n.Bridge.V6 = prefix("fd01::/64") }, helperapi.KindConflict},
		"within docker0":       {func(n *helperapi.Network) { n.Bridge.V4 = prefix("172.17.3.0/24") }, helperapi.KindConflict},
		"within a wider route": {func(n *helperapi.Network) { n.Bridge.V4 = prefix("192.168.7.0/24") }, ""},
		"over a narrow route":  {func(n *helperapi.Network) { n.Bridge.V4 = prefix("10.99.0.0/16") }, helperapi.KindConflict},
		"the same as a route":  {func(n *helperapi.Network) { n.Bridge.V4 = prefix("10.99.0.0/24") }, helperapi.KindConflict},
		"its own new address": {func(n *helperapi.Network) {
			n.Interface.Mode, n.Interface.Address = helperapi.ModeStatic, prefix("10.10.10.7/24")
		}, helperapi.KindConflict},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			n := helperapi.Network{
				Interface: helperapi.Interface{Name: "eth0", Mode: helperapi.ModeNone},
				Bridge:    helperapi.Bridge{V4: prefix("10.10.10.0/24"), CollectorPort: 5556},
				Egress:    helperapi.EgressDeny,
			}
			c.change(&n)
			err := Check(&n, rights, host)
			var apiErr *helperapi.Error
			if c.want == "" && err != nil {
				t.Fatalf("refused: %v", err)
			}
			if c.want != "" && (!errors.As(err, &apiErr) || apiErr.Kind != c.want) {
				t.Errorf("got %v, want kind %s", err, c.want)
			}
		})
	}
}

func TestParsePorts(t *testing.T) {
	cases := map[string]struct {
		text string
		want []helperapi.Port
		bad  bool
	}{
		"nothing": {text: ""},
		"one":     {text: "22/tcp", want: []helperapi.Port{{Protocol: helperapi.TCP, Number: 22}}},
		"two, with space and in capitals": {text: " 22/TCP , 161/udp,", want: []helperapi.Port{
			{Protocol: helperapi.TCP, Number: 22}, {Protocol: helperapi.UDP, Number: 161},
		}},
		"both": {text: "53", want: []helperapi.Port{{Protocol: helperapi.TCP, Number: 53}, {Protocol: helperapi.UDP, Number: 53}}},
		"zero": {text: "0/tcp", bad: true}, "large": {text: "65536", bad: true}, "protocol": {text: "1/sctp", bad: true},
		"empty protocol": {text: "1/", bad: true}, "range": {text: "1-5", bad: true}, "sign": {text: "+22", bad: true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := ParsePorts(c.text)
			if (err != nil) != c.bad {
				t.Fatalf("error %v, want one: %v", err, c.bad)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParseWords(t *testing.T) {
	if got, err := ParseHostPorts(""); err != nil || got != helperapi.HostPortsAssigned {
		t.Errorf("HOST_PORTS unset: %q, %v", got, err)
	}
	if got, err := ParseHostPorts("Protect"); err != nil || got != helperapi.HostPortsProtect {
		t.Errorf("HOST_PORTS protect: %q, %v", got, err)
	}
	if _, err := ParseHostPorts("all"); err == nil {
		t.Error("HOST_PORTS all was taken")
	}
	if got, err := ParseEgress(""); err != nil || got != helperapi.EgressDeny {
		t.Errorf("EGRESS unset: %q, %v", got, err)
	}
	if got, err := ParseEgress("internet"); err != nil || got != helperapi.EgressInternet {
		t.Errorf("EGRESS internet: %q, %v", got, err)
	}
	if _, err := ParseEgress("some"); err == nil {
		t.Error("EGRESS some was taken")
	}
}

func TestCheckAddress(t *testing.T) {
	services := []netip.Prefix{netip.MustParsePrefix("10.10.10.0/24"), {}}
	uses := []Use{
		{Net: netip.MustParsePrefix("0.0.0.0/0"), Link: "mgmt"},
		{Net: netip.MustParsePrefix("192.0.2.0/24"), Link: "mgmt", Direct: true},
		{Net: netip.MustParsePrefix("172.16.0.0/12"), Link: "vpn"},
		{Net: netip.MustParsePrefix("198.51.100.0/24"), Link: "eth0", Direct: true},
		{Net: netip.MustParsePrefix("2001:db8::/32"), Link: "mgmt"},
	}
	cases := map[string]struct {
		address string
		want    helperapi.Kind
	}{
		"free":                         {"203.0.113.7/24", ""},
		"as wide as the host's":        {"192.0.2.7/24", ""},
		"wider than the host's":        {"192.0.2.7/16", ""},
		"within the own network":       {"198.51.100.130/25", ""},
		"takes from a link":            {"192.0.2.130/25", helperapi.KindConflict},
		"takes from a route":           {"172.16.5.7/24", helperapi.KindConflict},
		"takes from a route of IPv6":   {"2001:db8:1::7/64", helperapi.KindConflict},
		"overlaps the service network": {"10.0.0.7/8", helperapi.KindConflict},
		"half of the internet":         {"64.0.0.1/2", helperapi.KindDenied},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			err := CheckAddress("eth0", netip.MustParsePrefix(c.address), services, uses)
			var refused *helperapi.Error
			if (c.want == "") != (err == nil) || (err != nil && (!errors.As(err, &refused) || refused.Kind != c.want)) {
				t.Errorf("got %v, want kind %q", err, c.want)
			}
		})
	}
}

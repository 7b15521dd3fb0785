package iface

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"honeysens.org/dockersensor/shared/helperapi"
	"honeysens.org/dockersensor/shared/nettest"
)

func look(t *testing.T, host *nettest.Host, name string, want *helperapi.Interface) (seen helperapi.InterfaceObserved) {
	t.Helper()
	err := host.Do(func() (err error) {
		var wrong faults
		seen, wrong, err = observe(name, want)
		seen.Problem = firstOf(wrong.link, wrong.address, wrong.difference)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return seen
}

func TestNetnsObserve(t *testing.T) {
	host, outside := nettest.NewHost(t, "host"), nettest.NewHost(t, "outside")
	host.Run("sysctl", "-qw", "net.ipv6.conf.default.addr_gen_mode=1")
	nettest.Connect(host, "eth0", nil, outside, "eth0", nil)
	host.Run("ip", "link", "set", "eth0", "address", "02:00:00:00:00:01")
	got := look(t, host, "eth0", nil)
	if !strings.Contains(got.Problem, "no address") {
		t.Errorf("without an address: %q", got.Problem)
	}
	host.Run("ip", "addr", "add", "192.0.2.1/24", "dev", "eth0")
	host.Run("ip", "addr", "add", "2001:db8::1/64", "dev", "eth0", "nodad")
	want := helperapi.InterfaceObserved{
		Name: "eth0", Up: true, MAC: "02:00:00:00:00:01",
		Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("2001:db8::1/64")},
	}
	if diff := cmp.Diff(want, look(t, host, "eth0", nil), cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
		t.Error(diff)
	}
	wishes := map[string]struct {
		wish helperapi.Interface
		says string
	}{
		"as it is":        {helperapi.Interface{Mode: helperapi.ModeNone}, ""},
		"its address":     {helperapi.Interface{Mode: helperapi.ModeStatic, Address: netip.MustParsePrefix("192.0.2.1/24")}, ""},
		"another address": {helperapi.Interface{Mode: helperapi.ModeStatic, Address: netip.MustParsePrefix("192.0.2.9/24")}, "192.0.2.9/24"},
		"another length":  {helperapi.Interface{Mode: helperapi.ModeStatic, Address: netip.MustParsePrefix("192.0.2.1/25")}, "192.0.2.1/25"},
		"its MAC":         {helperapi.Interface{Mode: helperapi.ModeNone, MAC: "02-00-00-00-00-01"}, ""},
		"another MAC":     {helperapi.Interface{Mode: helperapi.ModeNone, MAC: "02:00:00:00:00:09"}, "02:00:00:00:00:09"},
	}
	for name, w := range wishes {
		if got := look(t, host, "eth0", &w.wish); (got.Problem == "") != (w.says == "") || !strings.Contains(got.Problem, w.says) {
			t.Errorf("%s: %q", name, got.Problem)
		}
	}
	outside.Run("ip", "link", "set", "eth0", "down")
	if got := look(t, host, "eth0", nil); !strings.Contains(got.Problem, "no carrier") {
		t.Errorf("without a carrier: %q", got.Problem)
	}
	host.Run("ip", "link", "set", "eth0", "down")
	if got := look(t, host, "eth0", nil); got.Up || !strings.Contains(got.Problem, "down") {
		t.Errorf("down: %+v", got)
	}
	if got := look(t, host, "eth7", nil); !strings.Contains(got.Problem, "set IFACE to one of: eth0") {
		t.Errorf("missing: %q", got.Problem)
	}
}

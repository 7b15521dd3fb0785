package link

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"honeysens.org/dockersensor/nethelper/internal/hosttest"
	"honeysens.org/dockersensor/nethelper/internal/policy"
	"honeysens.org/dockersensor/shared/helperapi"
	"honeysens.org/dockersensor/shared/nettest"
)

var (
	idA = strings.Repeat("a1b2c3d4", 8)
	idB = strings.Repeat("0f1e2d3c", 8)
)

func layout(id, v4 string) Layout {
	return NewLayout(id, helperapi.Bridge{V4: netip.MustParsePrefix(v4), CollectorPort: 5556})
}

func newHost(t *testing.T) *nettest.Host {
	t.Helper()
	host, _ := hosttest.NewHosts(t)
	return host
}

func do(t *testing.T, host *nettest.Host, fn func() error) {
	t.Helper()
	if err := host.Do(fn); err != nil {
		t.Fatal(err)
	}
}

func sysctl(t *testing.T, host *nettest.Host, family, iface, key string) string {
	t.Helper()
	var value string
	do(t, host, func() (err error) {
		value, err = readSysctl(family, iface, key)
		return err
	})
	return value
}

func TestLayout(t *testing.T) {
	got := layout(idA, "10.10.10.0/24")
	if got.Name != "services-a1b2c3" || got.GatewayV4 != netip.MustParseAddr("10.10.10.1") {
		t.Errorf("layout %+v", got)
	}
	if !got.V6.Addr().IsPrivate() || got.V6.Bits() != 64 || got.V6 != got.V6.Masked() || !got.V6.Contains(got.GatewayV6) {
		t.Errorf("v6 %v gateway %v: want a unique local /64", got.V6, got.GatewayV6)
	}
	if other := layout(idB, "10.10.10.0/24"); other.V6 == got.V6 || other.MAC.String() == got.MAC.String() {
		t.Errorf("two sensors share %v or %v", other.V6, other.MAC)
	}
	if got.MAC[0]&3 != 2 || len(got.MAC) != 6 {
		t.Errorf("hardware address %v: want a locally administered one", got.MAC)
	}
}

func TestRecordSurvivesTheAlias(t *testing.T) {
	want := record{sensor: idA[:sensorIDLen], iface: "abcdefghijklmno", v4: "0", all4: "1", v6: v6Force, v6Value: "0"}
	got, ours := parseRecord(want.String())
	if !ours || got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if len(want.String()) > 255 {
		t.Errorf("%d bytes: an alias has room for 255", len(want.String()))
	}
	for _, alias := range []string{
		"", "honeysens", "honeysens x", "uplink", strings.Replace(want.String(), "v4=0", "v4=2", 1),
		strings.Replace(want.String(), "if=abcdefghijklmno", "if=../all", 1), strings.Replace(want.String(), "force", "none", 1) + "1",
		strings.Replace(want.String(), "v6=force:0", "v6=magic:0", 1),
	} {
		if _, ours := parseRecord(alias); ours {
			t.Errorf("alias %q was taken for a note", alias)
		}
	}
}

func TestNetnsEnsureAndRemoveLeaveNoTrace(t *testing.T) {
	for name, oldKernel := range map[string]bool{"force_forwarding": false, "older kernel": true} {
		t.Run(name, func(t *testing.T) {
			host := newHost(t)
			host.Run("sysctl", "-qw", "net.ipv6.conf.eth0.accept_ra=1")
			host.Run("ip", "link", "add", "other0", "type", "veth", "peer", "name", "other1")
			before := hosttest.Snapshot(host)
			b := New(idA, "eth0")
			b.oldKernel = oldKernel
			want := layout(idA, "10.10.10.0/24")
			var first, second Forwarding
			do(t, host, func() (err error) { first, err = b.Ensure(want); return err })
			do(t, host, func() (err error) { second, err = b.Ensure(want); return err })
			if first != second || !first.WasOffV4 || !first.WasOffV6 || first.AllV6 != oldKernel {
				t.Errorf("forwarding %+v, then %+v", first, second)
			}
			for _, c := range []struct{ family, iface, key, want string }{
				{ipv4, "all", "forwarding", "0"}, {ipv4, "eth0", "forwarding", "1"}, {ipv4, "services-a1b2c3", "forwarding", "1"},
				{ipv4, "other0", "forwarding", "0"}, {ipv6, "other0", "forwarding", "0"}, {ipv6, "eth0", "forwarding", "0"},
				{ipv6, "eth0", "accept_ra", "1"}, {ipv6, "default", "forwarding", "0"},
			} {
				if got := sysctl(t, host, c.family, c.iface, c.key); got != c.want {
					t.Errorf("%s %s %s is %s, want %s", c.family, c.iface, c.key, got, c.want)
				}
			}
			addresses := host.Run("ip", "addr", "show", "services-a1b2c3")
			for _, want := range []string{"10.10.10.1/24", want.GatewayV6.String() + "/64"} {
				if !strings.Contains(addresses, want) || strings.Contains(addresses, "tentative") {
					t.Errorf("no %s, or tentative:\n%s", want, addresses)
				}
			}
			do(t, host, b.Remove)
			if diff := cmp.Diff(strings.Split(before, "\n"), strings.Split(hosttest.Snapshot(host), "\n")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A killed helper remembers nothing; the alias does.
func TestNetnsAliasRemembersWhatWas(t *testing.T) {
	host := newHost(t)
	before := hosttest.Snapshot(host)
	do(t, host, func() error { _, err := New(idA, "eth0").Ensure(layout(idA, "10.10.10.0/24")); return err })
	do(t, host, func() error { _, err := New(idA, "eth0").Ensure(layout(idA, "10.20.0.0/16")); return err })
	if got := host.Run("ip", "addr", "show", "services-a1b2c3"); strings.Contains(got, "10.10.10.1") || !strings.Contains(got, "10.20.0.1/16") {
		t.Errorf("addresses after a change of the service network:\n%s", got)
	}
	var found []Found
	do(t, host, func() (err error) { found, err = Find(); return err })
	if diff := cmp.Diff([]Found{{Name: "services-a1b2c3", Sensor: idA[:sensorIDLen], Iface: "eth0"}}, found); diff != "" {
		t.Fatal(diff)
	}
	do(t, host, found[0].Remove)
	if diff := cmp.Diff(strings.Split(before, "\n"), strings.Split(hosttest.Snapshot(host), "\n")); diff != "" {
		t.Error(diff)
	}
}

func TestNetnsRemovedBridgeIsMadeAgainWithTheOldNote(t *testing.T) {
	host := newHost(t)
	before := hosttest.Snapshot(host)
	b := New(idA, "eth0")
	ensure := func() error { _, err := b.Ensure(layout(idA, "10.10.10.0/24")); return err }
	do(t, host, ensure)
	host.Run("ip", "link", "del", "services-a1b2c3")
	do(t, host, ensure)
	do(t, host, b.Remove)
	if diff := cmp.Diff(strings.Split(before, "\n"), strings.Split(hosttest.Snapshot(host), "\n")); diff != "" {
		t.Error(diff)
	}
}

// During an update two sensors share the interface for a while.
func TestNetnsTwoSensorsShareAnInterface(t *testing.T) {
	host := newHost(t)
	before := hosttest.Snapshot(host)
	a, b := New(idA, "eth0"), New(idB, "eth0")
	do(t, host, func() error { _, err := a.Ensure(layout(idA, "10.10.10.0/24")); return err })
	do(t, host, func() error { _, err := b.Ensure(layout(idB, "10.10.11.0/24")); return err })
	do(t, host, a.Remove)
	if got := sysctl(t, host, ipv4, "eth0", "forwarding"); got != on {
		t.Error("the first sensor's end took forwarding away from the second")
	}
	do(t, host, b.Remove)
	if diff := cmp.Diff(strings.Split(before, "\n"), strings.Split(hosttest.Snapshot(host), "\n")); diff != "" {
		t.Error(diff)
	}
}

// Docker may be installed while the sensor runs: what it switched on stays.
func TestNetnsForwardingOfOthersStays(t *testing.T) {
	host := newHost(t)
	b := New(idA, "eth0")
	var standing Forwarding
	ensure := func() (err error) { standing, err = b.Ensure(layout(idA, "10.10.10.0/24")); return err }
	do(t, host, ensure)
	host.Run("sysctl", "-qw", "net.ipv4.ip_forward=1")
	do(t, host, ensure)
	if standing.WasOffV4 {
		t.Error("forwarding of others is not seen")
	}
	do(t, host, b.Remove)
	if got := sysctl(t, host, ipv4, "eth0", "forwarding"); got != on {
		t.Error("forwarding that somebody else wants was switched off")
	}
}

func TestNetnsForwardingOfOthersStaysOnAnOlderKernel(t *testing.T) {
	host := newHost(t)
	host.Run("sysctl", "-qw", "net.ipv4.ip_default_ttl=128", "net.ipv6.conf.eth0.hop_limit=77")
	b := New(idA, "eth0")
	b.oldKernel = true
	var standing Forwarding
	ensure := func() (err error) { standing, err = b.Ensure(layout(idA, "10.10.10.0/24")); return err }
	do(t, host, ensure)
	if want := (Forwarding{WasOffV4: true, WasOffV6: true, AllV6: true, TTL: 128, HopLimit: 77}); standing != want {
		t.Errorf("standing %+v, want %+v", standing, want)
	}
	host.Run("sysctl", "-qw", "net.ipv6.conf.all.forwarding=1")
	do(t, host, ensure)
	if standing.WasOffV6 {
		t.Error("forwarding of others is not seen")
	}
	do(t, host, b.Remove)
	if got := sysctl(t, host, ipv6, "all", "forwarding"); got != on {
		t.Error("forwarding that somebody else wants was switched off")
	}
}

func TestNetnsRefusals(t *testing.T) {
	host := newHost(t)
	wantConflict := func(what string, err error) {
		t.Helper()
		var apiErr *helperapi.Error
		if !errors.As(err, &apiErr) || apiErr.Kind != helperapi.KindConflict {
			t.Errorf("%s: got %v, want a conflict", what, err)
		}
	}
	err := host.Do(func() error { _, err := New(idA, "eth7").Ensure(layout(idA, "10.10.10.0/24")); return err })
	wantConflict("missing interface", err)
	if want := "interface eth7 does not exist in this network namespace; set IFACE to one of: eth0"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("message %v", err)
	}
	host.Run("ip", "link", "add", "services-a1b2c3", "type", "veth", "peer", "name", "other1")
	wantConflict("foreign veth", host.Do(func() error { _, err := New(idA, "eth0").Ensure(layout(idA, "10.10.10.0/24")); return err }))
	do(t, host, New(idA, "eth0").Remove)
	host.Run("ip", "link", "show", "services-a1b2c3")
}

func TestNetnsUses(t *testing.T) {
	host := newHost(t)
	host.Run("ip", "route", "add", "10.0.0.0/8", "via", "192.0.2.2")
	do(t, host, func() error { _, err := New(idA, "eth0").Ensure(layout(idA, "10.10.10.0/24")); return err })
	var uses []policy.Use
	do(t, host, func() (err error) { uses, err = Uses("services-a1b2c3"); return err })
	want := map[policy.Use]bool{
		{Net: netip.MustParsePrefix("192.0.2.0/24"), Link: "eth0", Direct: true}:  true,
		{Net: netip.MustParsePrefix("10.0.0.0/8"), Link: "eth0"}:                  true,
		{Net: netip.MustParsePrefix("2001:db8::/64"), Link: "eth0", Direct: true}: true,
	}
	for _, use := range uses {
		delete(want, use)
		if use.Link == "services-a1b2c3" {
			t.Errorf("own bridge among the host's: %v", use)
		}
	}
	if len(want) > 0 {
		t.Errorf("missing %v in %v", want, uses)
	}
}

func FuzzParseRecord(f *testing.F) {
	f.Add("honeysens 0123456789ab if=eth0 v4=0 all4=0 v6=force:0")
	f.Add("honeysens a b c d e f")
	f.Fuzz(func(t *testing.T, alias string) {
		note, ours := parseRecord(alias)
		if !ours {
			return
		}
		if again, ok := parseRecord(note.String()); !ok || again != note {
			t.Errorf("%q reads as %+v, which reads as %+v", alias, note, again)
		}
	})
}

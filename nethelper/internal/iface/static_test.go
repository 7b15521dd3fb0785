package iface

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"honeysens.org/dockersensor/nethelper/internal/hosttest"
	"honeysens.org/dockersensor/shared/helperapi"
)

func wishStatic(address, gateway string) helperapi.Interface {
	wish := helperapi.Interface{Mode: helperapi.ModeStatic, Address: netip.MustParsePrefix(address)}
	if gateway != "" {
		wish.Gateway = netip.MustParseAddr(gateway)
	}
	return wish
}

func TestNetnsStaticAddressComesChangesAndGoes(t *testing.T) {
	host, router := lan(t)
	router.Run("ip", "addr", "add", "2001:db8::fe/64", "dev", "eth0", "nodad")
	before := hosttest.Snapshot(host)
	k := startKeeper(t, host, testConfig(t))
	if seen := k.want(wishStatic("192.0.2.7/24", "192.0.2.254")); !has("192.0.2.7/24")(seen) || seen.Problem != "" {
		t.Errorf("observed %+v", seen)
	}
	host.Run("ping", "-c1", "-W2", "192.0.2.254")
	if out := host.Run("ip", "route", "get", "198.51.100.1"); !strings.Contains(out, "via 192.0.2.254") {
		t.Errorf("route %s", out)
	}
	// What others remove comes back.
	host.Run("ip", "addr", "flush", "dev", "eth0", "scope", "global", "to", "192.0.2.7")
	k.until("the address is back", has("192.0.2.7/24"))
	if seen := k.want(wishStatic("192.0.2.8/24", "")); has("192.0.2.7/24")(seen) || !has("192.0.2.8/24")(seen) {
		t.Errorf("addresses %v", seen.Addresses)
	}
	if out := host.Run("ip", "route"); strings.Contains(out, "default") {
		t.Errorf("the gateway stays:\n%s", out)
	}
	if seen := k.want(wishStatic("2001:db8::7/64", "2001:db8::fe")); has("192.0.2.8/24")(seen) || !has("2001:db8::7/64")(seen) || !has("2001:db8::1/64")(seen) {
		t.Errorf("addresses %v", seen.Addresses)
	}
	k.remove()
	if diff := cmp.Diff(strings.Split(before, "\n"), strings.Split(hosttest.Snapshot(host), "\n")); diff != "" {
		t.Errorf("the host differs:\n%s", diff)
	}
}

// TestNetnsGatewayChanges keeps the address: only the way out is another one, or
// none, and none of those before stays.
func TestNetnsGatewayChanges(t *testing.T) {
	host, router := lan(t)
	router.Run("ip", "addr", "add", "2001:db8::fe/64", "dev", "eth0", "nodad")
	before := hosttest.Snapshot(host)
	k := startKeeper(t, host, testConfig(t))
	for _, family := range []struct{ flag, address, first, second string }{
		{"-4", "192.0.2.7/24", "192.0.2.254", "192.0.2.253"}, {"-6", "2001:db8::7/64", "2001:db8::fe", "2001:db8::fd"},
	} {
		for _, gateway := range []string{family.first, family.second, "", family.second, family.first} {
			if seen := k.want(wishStatic(family.address, gateway)); seen.Problem != "" || !has(family.address)(seen) {
				t.Errorf("observed %+v", seen)
			}
			out := host.Run("ip", family.flag, "route", "show", "default")
			if gateway == "" && out != "" || gateway != "" && (!strings.Contains(out, "via "+gateway+" ") || strings.Count(out, "via") != 1) {
				t.Errorf("gateway %q: %s", gateway, out)
			}
		}
	}
	k.remove()
	if diff := cmp.Diff(strings.Split(before, "\n"), strings.Split(hosttest.Snapshot(host), "\n")); diff != "" {
		t.Errorf("the host differs:\n%s", diff)
	}
}

func TestNetnsStaticAddressOfTheHostIsLeftAlone(t *testing.T) {
	host, _ := lan(t)
	host.Run("ip", "addr", "add", "192.0.2.1/24", "dev", "eth0")
	host.Run("ip", "route", "add", "default", "via", "192.0.2.254")
	host.Run("ip", "link", "set", "eth0", "alias", "uplink of rack 7")
	before := hosttest.Snapshot(host)
	k := startKeeper(t, host, testConfig(t))
	seen := k.want(wishStatic("192.0.2.1/24", "192.0.2.254"))
	if seen.Problem != "" || !strings.Contains(seen.Note, "the host has given eth0 the address 192.0.2.1/24 itself") {
		t.Errorf("observed %+v", seen)
	}
	if diff := cmp.Diff(strings.Split(before, "\n"), strings.Split(hosttest.Snapshot(host), "\n")); diff != "" {
		t.Errorf("the host differs:\n%s", diff)
	}
	// Another one is added to it, and goes alone.
	if seen := k.want(wishStatic("192.0.2.9/24", "192.0.2.253")); !has("192.0.2.9/24")(seen) || !has("192.0.2.1/24")(seen) {
		t.Errorf("addresses %v", seen.Addresses)
	}
	if out := host.Run("ip", "route", "get", "198.51.100.1"); !strings.Contains(out, "via 192.0.2.254") {
		t.Errorf("the host's own gateway lost: %s", out)
	}
	k.remove()
	if diff := cmp.Diff(strings.Split(before, "\n"), strings.Split(hosttest.Snapshot(host), "\n")); diff != "" {
		t.Errorf("the host differs after the end:\n%s", diff)
	}
}

func TestNetnsHardwareAddress(t *testing.T) {
	host, router := lan(t)
	host.Run("ip", "addr", "add", "192.0.2.1/24", "dev", "eth0")
	host.Run("ip", "route", "add", "default", "via", "192.0.2.254")
	router.Run("ip", "addr", "add", "2001:db8::fe/64", "dev", "eth0", "nodad")
	router.Run("ping", "-c1", "-W2", "192.0.2.1")
	router.Run("ping", "-c1", "-W2", "2001:db8::1")
	before := hosttest.Snapshot(host)
	k := startKeeper(t, host, testConfig(t))
	if seen := k.want(helperapi.Interface{Mode: helperapi.ModeNone, MAC: "02-00-00-00-00-99"}); seen.MAC != "02:00:00:00:00:99" || seen.Problem != "" {
		t.Errorf("observed %+v", seen)
	}
	// The neighbour was told: nothing is lost.
	router.Run("ping", "-c1", "-W1", "192.0.2.1")
	router.Run("ping", "-c1", "-W1", "2001:db8::1")
	if seen := k.want(helperapi.Interface{Mode: helperapi.ModeNone, MAC: "02:00:00:00:00:98"}); seen.MAC != "02:00:00:00:00:98" {
		t.Errorf("observed %+v", seen)
	}
	if seen := k.want(helperapi.Interface{Mode: helperapi.ModeNone}); seen.MAC != "02:00:00:00:00:01" {
		t.Errorf("observed %+v", seen)
	}
	if diff := cmp.Diff(strings.Split(before, "\n"), strings.Split(hosttest.Snapshot(host), "\n")); diff != "" {
		t.Errorf("the host differs:\n%s", diff)
	}
	k.want(helperapi.Interface{Mode: helperapi.ModeNone, MAC: "02:00:00:00:00:99"})
	k.remove()
	if diff := cmp.Diff(strings.Split(before, "\n"), strings.Split(hosttest.Snapshot(host), "\n")); diff != "" {
		t.Errorf("the host differs after the end:\n%s", diff)
	}
}

func TestNetnsInterfaceThatIsDownComesUpAndGoesDown(t *testing.T) {
	host, _ := lan(t)
	host.Run("ip", "link", "set", "eth0", "down")
	before := hosttest.Snapshot(host)
	k := startKeeper(t, host, testConfig(t))
	if seen := k.want(wishStatic("192.0.2.7/24", "")); !seen.Up {
		t.Errorf("observed %+v", seen)
	}
	k.remove()
	if diff := cmp.Diff(strings.Split(before, "\n"), strings.Split(hosttest.Snapshot(host), "\n")); diff != "" {
		t.Errorf("the host differs:\n%s", diff)
	}
}

func TestNetnsFromStaticToDHCPAndBack(t *testing.T) {
	host, router := lan(t, "dnsmasq")
	serveDHCP(t, router, fixed)
	k := startKeeper(t, host, testConfig(t))
	k.want(wishStatic("192.0.2.7/24", ""))
	k.want(wishDHCP())
	if seen := k.until("a lease", has(leased)); has("192.0.2.7/24")(seen) {
		t.Errorf("addresses %v", seen.Addresses)
	}
	if seen := k.want(wishStatic("192.0.2.7/24", "")); has(leased)(seen) || !has("192.0.2.7/24")(seen) {
		t.Errorf("addresses %v", seen.Addresses)
	}
}

func TestNetnsMissingInterface(t *testing.T) {
	host, _ := lan(t)
	cfg := testConfig(t)
	cfg.Iface = "eth7"
	k := startKeeper(t, host, cfg)
	wish := wishDHCP()
	wish.Name = "eth7"
	if a := k.tell(order{Wish: &wish}); !strings.Contains(a.Error, "interface eth7 does not exist") {
		t.Errorf("got %+v", a)
	}
	k.remove()
}

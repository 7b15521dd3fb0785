package iface

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"honeysens.org/dockersensor/nethelper/internal/hosttest"
	"honeysens.org/dockersensor/shared/helperapi"
	"honeysens.org/dockersensor/shared/nettest"
)

// lan is a host whose eth0 has no IPv4 address, and a router next to it.
func lan(t *testing.T, tools ...string) (host, router *nettest.Host) {
	t.Helper()
	nettest.Need(t, append(tools, "ip", "nft", "sysctl")...)
	t.Parallel()
	host, router = nettest.NewHost(t, "host"), nettest.NewHost(t, "router")
	host.Run("sysctl", "-qw", "net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0", "net.ipv6.conf.default.addr_gen_mode=1")
	nettest.Connect(host, "eth0", []string{"2001:db8::1/64"}, router, "eth0", []string{"192.0.2.254/24"})
	host.Run("ip", "link", "set", "eth0", "address", "02:00:00:00:00:01")
	settled(t, host)
	return host, router
}

// settled waits until nothing changes by itself any more: a carrier that has
// just come, addresses that are tentative.
func settled(t *testing.T, host *nettest.Host) {
	t.Helper()
	deadline, tick := time.After(10*time.Second), time.NewTicker(10*time.Millisecond)
	defer tick.Stop()
	ready := func() bool {
		return host.Run("ip", "addr", "show", "tentative") == "" && strings.Contains(host.Run("ip", "link", "show", "eth0"), "state UP") &&
			strings.Contains(host.Run("ip", "-6", "route", "show", "table", "local"), "local 2001:db8::1 ")
	}
	for !ready() {
		select {
		case <-deadline:
			t.Fatal("the interface does not come up")
		case <-tick.C:
		}
	}
}

// serveDHCP starts a real DHCP server at the router, with a lease time of two
// minutes, which is its shortest.
func serveDHCP(t *testing.T, router *nettest.Host, options ...string) (stop func(), log string) {
	t.Helper()
	args := append([]string{
		"--no-daemon", "--conf-file=/dev/null", "--port=0", "--interface=eth0", "--log-dhcp", "--user=root", "--dhcp-authoritative",
		"--dhcp-leasefile=" + filepath.Join(t.TempDir(), "leases"), "--pid-file=", "--no-ping",
		"--dhcp-range=192.0.2.50,192.0.2.60,255.255.255.0,2m", "--dhcp-option=option:router,192.0.2.254", "--dhcp-option=option:dns-server,192.0.2.253",
	}, options...)
	return program(t, router, "dnsmasq", args...)
}

func wishDHCP() helperapi.Interface {
	return helperapi.Interface{Mode: helperapi.ModeDHCP, Hostname: "sensor-7"}
}

const leased = "192.0.2.77/24"

// fixed makes the server's answer known before.
const fixed = "--dhcp-host=02:00:00:00:00:01,192.0.2.77"

func TestNetnsDHCPGivesAndTakes(t *testing.T) {
	host, router := lan(t, "dnsmasq")
	before := hosttest.Snapshot(host)
	cfg := testConfig(t)
	cfg.ResolvConf = filepath.Join(cfg.Dir, "resolv.conf")
	const names = "# mine\nnameserver 198.51.100.1\n"
	if err := os.WriteFile(cfg.ResolvConf, []byte(names), 0o600); err != nil {
		t.Fatal(err)
	}
	_, log := serveDHCP(t, router, fixed)
	k := startKeeper(t, host, cfg)
	k.want(wishDHCP())
	k.until("a lease", has(leased))
	seen := k.until("says so", func(seen helperapi.InterfaceObserved) bool {
		return seen.Problem == "" && strings.Contains(seen.Note, leased+" by DHCP from 192.0.2.254 until ")
	})
	if !has("2001:db8::1/64")(seen) {
		t.Errorf("addresses %v", seen.Addresses)
	}
	if out := host.Run("ip", "-4", "route"); !strings.Contains(out, "default via 192.0.2.254") || !strings.Contains(out, "metric 30000") {
		t.Errorf("routes\n%s", out)
	}
	if out := host.Run("ip", "-4", "addr", "show", "eth0"); strings.Contains(out, "valid_lft forever") {
		t.Errorf("the kernel would keep the address for ever:\n%s", out)
	}
	if raw, err := os.ReadFile(log); err != nil || !strings.Contains(string(raw), "client provides name: sensor-7") {
		t.Errorf("the server did not get the host name: %v", err)
	}
	// The address comes first.
	waitFor(t, cfg.ResolvConf, "\nnameserver 192.0.2.253\n")
	host.Run("ping", "-c1", "-W2", "192.0.2.254")
	k.remove()
	if diff := cmp.Diff(strings.Split(before, "\n"), strings.Split(hosttest.Snapshot(host), "\n")); diff != "" {
		t.Errorf("the host differs:\n%s", diff)
	}
	if raw, err := os.ReadFile(cfg.ResolvConf); err != nil || string(raw) != names {
		t.Errorf("name servers %v\n%s", err, raw)
	}
	waitFor(t, log, "DHCPRELEASE(eth0) 192.0.2.77")
}

func TestNetnsDHCPServerComesLate(t *testing.T) {
	host, router := lan(t, "dnsmasq")
	k := startKeeper(t, host, testConfig(t))
	k.want(wishDHCP())
	k.until("a problem", hasProblem("DHCP at eth0: no DHCP server answers; trying again"))
	serveDHCP(t, router, fixed)
	k.until("a lease", has(leased))
}

func TestNetnsDHCPRenewsRebindsAndMoves(t *testing.T) {
	host, router := lan(t, "dnsmasq")
	stop, log := serveDHCP(t, router, fixed, "--dhcp-option=option:T1,1", "--dhcp-option=option:T2,3")
	k := startKeeper(t, host, testConfig(t))
	k.want(wishDHCP())
	k.until("a lease", has(leased))
	waitForCount(t, log, "DHCPACK(eth0) 192.0.2.77", 2)
	stop()
	// Another server, at another address, which does not know the lease but is
	// authoritative: it takes it over when asked by broadcast.
	router.Run("ip", "addr", "del", "192.0.2.254/24", "dev", "eth0")
	router.Run("ip", "addr", "add", "192.0.2.253/24", "dev", "eth0")
	stop, log = serveDHCP(t, router, fixed)
	waitFor(t, log, "DHCPACK(eth0) 192.0.2.77")
	k.until("the other server", func(seen helperapi.InterfaceObserved) bool { return strings.Contains(seen.Note, "from 192.0.2.253") })
	stop()
}

func TestNetnsDHCPRefusalBringsAnotherLease(t *testing.T) {
	host, router := lan(t, "dnsmasq")
	stop, _ := serveDHCP(t, router, fixed, "--dhcp-option=option:T1,1", "--dhcp-option=option:T2,3")
	k := startKeeper(t, host, testConfig(t))
	k.want(wishDHCP())
	k.until("a lease", has(leased))
	stop()
	serveDHCP(t, router, "--dhcp-host=02:00:00:00:00:01,192.0.2.88")
	seen := k.until("another lease", has("192.0.2.88/24"))
	if has(leased)(seen) {
		t.Errorf("both addresses: %v", seen.Addresses)
	}
}

func TestNetnsDHCPLeavesTheHostsAddressAlone(t *testing.T) {
	host, router := lan(t, "dnsmasq")
	_, log := serveDHCP(t, router, fixed)
	host.Run("ip", "addr", "add", "192.0.2.1/24", "dev", "eth0")
	before := hosttest.Snapshot(host)
	k := startKeeper(t, host, testConfig(t))
	k.want(wishDHCP())
	k.until("a note", func(seen helperapi.InterfaceObserved) bool {
		return seen.Problem == "" && strings.Contains(seen.Note, "the host itself has given eth0 the address 192.0.2.1/24")
	})
	if diff := cmp.Diff(strings.Split(before, "\n"), strings.Split(hosttest.Snapshot(host), "\n")); diff != "" {
		t.Errorf("the host differs:\n%s", diff)
	}
	if raw, err := os.ReadFile(log); err != nil || strings.Contains(string(raw), "DHCPDISCOVER") {
		t.Errorf("there was DHCP: %v\n%s", err, raw)
	}
	// The host's own client gives up, and comes back.
	host.Run("ip", "addr", "del", "192.0.2.1/24", "dev", "eth0")
	k.until("a lease", has(leased))
	host.Run("ip", "addr", "add", "192.0.2.1/24", "dev", "eth0")
	k.until("only the host's address", func(seen helperapi.InterfaceObserved) bool {
		return !has(leased)(seen) && has("192.0.2.1/24")(seen)
	})
	k.remove()
	if diff := cmp.Diff(strings.Split(before, "\n"), strings.Split(hosttest.Snapshot(host), "\n")); diff != "" {
		t.Errorf("the host differs after the end:\n%s", diff)
	}
}

func TestNetnsDHCPKilledHelperIsSucceeded(t *testing.T) {
	host, router := lan(t, "dnsmasq")
	before := hosttest.Snapshot(host)
	serveDHCP(t, router, fixed)
	k := startKeeper(t, host, testConfig(t))
	k.want(wishDHCP())
	k.until("a lease", has(leased))
	_ = k.cmd.Process.Kill()
	_ = k.end()
	// Another sensor takes over without a moment without the address.
	cfg := testConfig(t)
	cfg.SensorID = strings.Repeat("0f", 32)
	next := startKeeper(t, host, cfg)
	if seen := next.want(wishDHCP()); !has(leased)(seen) {
		t.Errorf("the address has gone: %v", seen.Addresses)
	}
	next.until("a lease", func(seen helperapi.InterfaceObserved) bool { return strings.Contains(seen.Note, "by DHCP") })
	_ = next.cmd.Process.Kill()
	_ = next.end()
	var done []string
	err := host.Do(func() (err error) {
		if done, err = Cleanup(func(id string) bool { return id == testID[:12] }, "/none"); err == nil && len(done) == 0 {
			done, err = Cleanup(func(id string) bool { return id == cfg.SensorID[:12] }, "/none")
		}
		return err
	})
	if want := []string{"changes to interface eth0"}; err != nil || !cmp.Equal(done, want) {
		t.Errorf("cleanup: %q, %v", done, err)
	}
	if diff := cmp.Diff(strings.Split(before, "\n"), strings.Split(hosttest.Snapshot(host), "\n")); diff != "" {
		t.Errorf("the host differs:\n%s", diff)
	}
}

func TestNetnsDHCPLeaseThatTakesTrafficIsRefused(t *testing.T) {
	host, router := lan(t, "dnsmasq")
	nettest.Connect(host, "mgmt", []string{"192.0.0.5/16"}, router, "mgmt", nil)
	serveDHCP(t, router, fixed)
	k := startKeeper(t, host, testConfig(t))
	k.want(wishDHCP())
	k.until("a problem", hasProblem("the host reaches its network through mgmt"))
	if out := host.Run("ip", "-4", "addr", "show", "eth0"); strings.Contains(out, "inet ") {
		t.Errorf("an address all the same:\n%s", out)
	}
}

func TestNetnsTwoSensorsHandOver(t *testing.T) {
	host, router := lan(t, "dnsmasq")
	before := hosttest.Snapshot(host)
	serveDHCP(t, router, fixed)
	first := startKeeper(t, host, testConfig(t))
	first.want(wishDHCP())
	first.until("a lease", has(leased))
	cfg := testConfig(t)
	cfg.SensorID = strings.Repeat("0f", 32)
	second := startKeeper(t, host, cfg)
	second.want(wishDHCP())
	first.until("lets go", func(seen helperapi.InterfaceObserved) bool {
		return seen.Note == "sensor 0f0f0f0f0f0f has the interface now"
	})
	// The new one fails: the old one goes on.
	second.remove()
	first.until("a lease again", func(seen helperapi.InterfaceObserved) bool { return strings.Contains(seen.Note, "by DHCP") })
	third := startKeeper(t, host, cfg)
	third.want(wishDHCP())
	third.until("has it", func(seen helperapi.InterfaceObserved) bool { return strings.Contains(seen.Note, "by DHCP") })
	first.remove()
	if seen := third.tell(order{}).Seen; !has(leased)(seen) {
		t.Errorf("the end of the old one took the address: %v", seen.Addresses)
	}
	third.remove()
	if diff := cmp.Diff(strings.Split(before, "\n"), strings.Split(hosttest.Snapshot(host), "\n")); diff != "" {
		t.Errorf("the host differs:\n%s", diff)
	}
}

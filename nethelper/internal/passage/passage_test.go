package passage

import (
	"io"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap/zaptest"

	"honeysens.org/dockersensor/nethelper/internal/nft"
	"honeysens.org/dockersensor/nethelper/internal/ruleset"
	"honeysens.org/dockersensor/shared/helperapi"
	"honeysens.org/dockersensor/shared/nettest"
)

const sensorID, name = "0123456789abcdef", "honeysens-0123456789ab"

// lab is an attacker, a host with a sensor's table, and a service.
type lab struct {
	attacker, host, service *nettest.Host
	passage                 *Passage
	table                   *nft.Table
}

func newLab(t *testing.T, egress helperapi.Egress) *lab {
	t.Helper()
	nettest.Need(t, "nft", "sysctl", "iptables-nft", "ip6tables-nft")
	l := &lab{attacker: nettest.NewHost(t, "attacker"), host: nettest.NewHost(t, "host"), service: nettest.NewHost(t, "service")}
	for _, h := range []*nettest.Host{l.attacker, l.host, l.service} {
		h.Run("sysctl", "-qw", "net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0")
	}
	nettest.Connect(l.attacker, "eth0", []string{"192.0.2.2/24", "2001:db8:a::2/64"}, l.host, "eth0", []string{"192.0.2.1/24", "2001:db8:a::1/64"})
	nettest.Connect(l.service, "eth0", []string{"10.10.10.2/24", "fd12::2/64"}, l.host, "svc0", []string{"10.10.10.1/24", "fd12::1/64"})
	l.service.Run("ip", "route", "add", "default", "via", "10.10.10.1")
	l.service.Run("ip", "-6", "route", "add", "default", "via", "fd12::1")
	l.host.Run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
	for _, addr := range []string{"10.10.10.2:80", "[fd12::2]:80"} {
		serve(t, l.service, addr, "service")
	}
	for _, addr := range []string{"192.0.2.2:443", "[2001:db8:a::2]:443"} {
		serve(t, l.attacker, addr, "outside")
	}
	for _, addr := range []string{"10.10.10.1:5556", "[fd12::1]:5556"} {
		serve(t, l.host, addr, "collector")
	}
	l.redirect(t, egress)
	var err error
	if l.passage, err = New(zaptest.NewLogger(t), sensorID, nft.Config{NetNS: l.host.Fd()}); err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *lab) redirect(t *testing.T, egress helperapi.Egress) {
	t.Helper()
	want, err := ruleset.New(ruleset.Config{
		SensorID: sensorID, Iface: "eth0", Bridge: "svc0",
		V4: netip.MustParsePrefix("10.10.10.0/24"), V6: netip.MustParsePrefix("fd12::/64"),
		GatewayV4: netip.MustParseAddr("10.10.10.1"), GatewayV6: netip.MustParseAddr("fd12::1"),
		CollectorPort: 5556, HostPorts: helperapi.HostPortsProtect, Egress: egress,
		Services: []ruleset.Service{{ID: "s", V4: netip.MustParseAddr("10.10.10.2"), V6: netip.MustParseAddr("fd12::2"), CatchAll: true}},
	})
	if err != nil {
		t.Fatal(err)
	}
	table, err := nft.Open(zaptest.NewLogger(t), nft.Config{NetNS: l.host.Fd()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = table.Close() })
	if err := table.Apply(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	l.table = table
}

func config(egress helperapi.Egress) Config {
	return Config{
		Iface: "eth0", Bridge: "svc0", V4: netip.MustParsePrefix("10.10.10.0/24"), V6: netip.MustParsePrefix("fd12::/64"),
		GatewayV4: netip.MustParseAddr("10.10.10.1"), GatewayV6: netip.MustParseAddr("fd12::1"),
		CollectorPort: 5556, Egress: egress,
	}
}

func (l *lab) ensure(t *testing.T, egress helperapi.Egress) []helperapi.Firewall {
	t.Helper()
	found, err := l.passage.Ensure(t.Context(), config(egress))
	if err != nil {
		t.Fatal(err)
	}
	// What could not be resolved is tried again only after some seconds.
	for _, h := range []*nettest.Host{l.attacker, l.host, l.service} {
		h.Run("ip", "neigh", "flush", "all")
	}
	for _, f := range found {
		if f.Problem != "" && f.Kind != kindLegacy {
			t.Errorf("firewall %+v", f)
		}
	}
	return found
}

// serve writes a name to everybody who connects, until the test ends.
func serve(t *testing.T, h *nettest.Host, addr, text string) {
	t.Helper()
	var l net.Listener
	err := h.Do(func() (err error) { l, err = net.Listen("tcp", addr); return err })
	if err != nil {
		t.Fatal(err)
	}
	var server sync.WaitGroup
	server.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, text)
			_ = conn.Close()
		}
	})
	t.Cleanup(func() { _ = l.Close(); server.Wait() })
}

func ask(h *nettest.Host, addr string) string { return askFor(h, addr, 500*time.Millisecond) }

func askFor(h *nettest.Host, addr string, patience time.Duration) string {
	var answer []byte
	_ = h.Do(func() error {
		conn, err := net.DialTimeout("tcp", addr, patience)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		_ = conn.SetDeadline(time.Now().Add(time.Second))
		answer, err = io.ReadAll(conn)
		return err
	})
	return string(answer)
}

// check asks everybody, in both families: an attacker the service, the service
// the collector and the world.
func (l *lab) check(t *testing.T, when string, redirected, collector, egress bool) {
	t.Helper()
	var askers sync.WaitGroup
	defer askers.Wait()
	for _, c := range []struct {
		what   string
		from   *nettest.Host
		addrs  []string
		answer string
		open   bool
	}{
		{"attacker to service", l.attacker, []string{"192.0.2.1:80", "[2001:db8:a::1]:80"}, "service", redirected},
		{"service to collector", l.service, []string{"10.10.10.1:5556", "[fd12::1]:5556"}, "collector", collector},
		{"service to the world", l.service, []string{"192.0.2.2:443", "[2001:db8:a::2]:443"}, "outside", egress},
	} {
		for _, addr := range c.addrs {
			want := ""
			if c.open {
				want = c.answer
			}
			askers.Go(func() {
				if got := ask(c.from, addr); got != want {
					t.Errorf("%s: %s at %s gets %q, want %q", when, c.what, addr, got, want)
				}
			})
		}
	}
}

// ruleset is what nft shows of others, without counters.
func (l *lab) others() string {
	out := l.host.Run("nft", "-a", "list", "ruleset")
	out = regexp.MustCompile(`(?s)table (inet|bridge) honeysens.*?\n}\n`).ReplaceAllString(out, "")
	return regexp.MustCompile(`packets \d+ bytes \d+`).ReplaceAllString(out, "")
}

func (l *lab) iptables(t *testing.T, args ...string) {
	t.Helper()
	for _, program := range []string{"iptables-nft", "ip6tables-nft"} {
		l.host.Run(program, args...)
	}
}

func TestNetnsIptables(t *testing.T) {
	firewalls := map[string]struct {
		setUp  func(*testing.T, *lab)
		chain  string
		egress helperapi.Egress
	}{
		"policy": {func(t *testing.T, l *lab) {
			l.iptables(t, "-P", "FORWARD", "DROP")
		}, "FORWARD", helperapi.EgressDeny},
		"last rule": {func(t *testing.T, l *lab) {
			l.iptables(t, "-A", "FORWARD", "-m", "comment", "--comment", "no", "-j", "REJECT")
		}, "FORWARD", helperapi.EgressDeny},
		"Docker": {func(t *testing.T, l *lab) {
			l.iptables(t, "-N", "DOCKER-USER")
			l.iptables(t, "-A", "DOCKER-USER", "-j", "RETURN")
			l.iptables(t, "-A", "FORWARD", "-j", "DOCKER-USER")
			l.iptables(t, "-P", "FORWARD", "DROP")
		}, "DOCKER-USER", helperapi.EgressAll},
	}
	for title, firewall := range firewalls {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			egress := firewall.egress
			l := newLab(t, egress)
			firewall.setUp(t, l)
			before := l.others()
			l.check(t, "before", false, true, false)
			found := l.ensure(t, egress)
			if len(found) != 2 || found[0].Kind != kindIptables || !strings.Contains(found[0].Passage, firewall.chain+": -m conntrack --ctstate DNAT") {
				t.Errorf("found %+v", found)
			}
			l.check(t, "with the passage", true, true, egress == helperapi.EgressAll)
			want := "-A " + firewall.chain + " -m conntrack --ctstate DNAT --ctreplsrc 10.10.10.0/24 -m comment --comment " + name + " -j ACCEPT"
			if list := l.host.Run("iptables-nft", "-S"); strings.Count(list, want) != 1 || strings.Count(list, name) != strings.Count(found[0].Passage, name) {
				t.Errorf("iptables -S does not show %q once:\n%s", want, list)
			}
			once := l.others()
			l.ensure(t, egress)
			if diff := cmp.Diff(once, l.others()); diff != "" {
				t.Errorf("the second time (-once +twice):\n%s", diff)
			}
			if err := l.passage.Remove(t.Context()); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(before, l.others()); diff != "" {
				t.Errorf("after remove (-before +after):\n%s", diff)
			}
		})
	}
}

func TestNetnsIptablesInput(t *testing.T) {
	t.Parallel()
	l := newLab(t, helperapi.EgressDeny)
	l.iptables(t, "-P", "INPUT", "DROP")
	// As everybody does who drops and wants IPv6 to work.
	l.host.Run("ip6tables-nft", "-A", "INPUT", "-i", "eth0", "-p", "ipv6-icmp", "-j", "ACCEPT")
	before := l.others()
	// Neither the collector nor, since the host hears no neighbour, a service by IPv6.
	for _, addr := range []string{"10.10.10.1:5556", "[fd12::1]:5556"} {
		if got := ask(l.service, addr); got != "" {
			t.Errorf("before: service to collector at %s gets %q", addr, got)
		}
	}
	if found := l.ensure(t, helperapi.EgressDeny); len(found) != 2 {
		t.Errorf("found %+v", found)
	}
	l.check(t, "with the passage", true, true, false)
	list := l.host.Run("iptables-nft", "-S", "INPUT")
	if want := "-A INPUT -d 10.10.10.1/32 -i svc0 -p tcp -m tcp --dport 5556 -m comment --comment " + name + " -j ACCEPT"; !strings.Contains(list, want) {
		t.Errorf("iptables -S does not show %q:\n%s", want, list)
	}
	if err := l.passage.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, l.others()); diff != "" {
		t.Errorf("after remove (-before +after):\n%s", diff)
	}
}

const nativeFirewall = `table inet firewall {
	chain forward { type filter hook forward priority 0; policy drop; }
	chain input {
		type filter hook input priority 0; policy drop
		iifname { "eth0", "lo" } accept
	}
}`

func TestNetnsNftables(t *testing.T) {
	t.Parallel()
	for _, egress := range []helperapi.Egress{helperapi.EgressDeny, helperapi.EgressAll} {
		l := newLab(t, egress)
		l.host.Run("nft", nativeFirewall)
		before := l.others()
		l.check(t, "before", false, false, false)
		if found := l.ensure(t, egress); len(found) != 2 || found[0].Kind != kindNftables {
			t.Errorf("found %+v", found)
		}
		l.check(t, "with the passage", true, true, egress == helperapi.EgressAll)
		once := l.others()
		if !strings.Contains(once, `iifname "svc0"`) || !strings.Contains(once, `comment "`+name+`"`) {
			t.Errorf("nft does not show the rules well:\n%s", once)
		}
		l.ensure(t, egress)
		if diff := cmp.Diff(once, l.others()); diff != "" {
			t.Errorf("the second time (-once +twice):\n%s", diff)
		}
		if err := l.passage.Remove(t.Context()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(before, l.others()); diff != "" {
			t.Errorf("after remove (-before +after):\n%s", diff)
		}
	}
}

func TestNetnsEnsureFollows(t *testing.T) {
	t.Parallel()
	l := newLab(t, helperapi.EgressDeny)
	l.iptables(t, "-P", "FORWARD", "ACCEPT")
	before := l.others()
	if found := l.ensure(t, helperapi.EgressDeny); len(found) != 0 || l.others() != before {
		t.Errorf("a chain that drops nothing was touched: %+v", found)
	}
	l.iptables(t, "-P", "FORWARD", "DROP")
	l.ensure(t, helperapi.EgressDeny)
	l.host.Run("iptables-nft", "-F", "FORWARD")
	l.ensure(t, helperapi.EgressDeny)
	l.check(t, "after a flush", true, true, false)
	l.iptables(t, "-I", "FORWARD", "-j", "DROP")
	l.check(t, "behind a new rule", false, true, false)
	l.ensure(t, helperapi.EgressDeny)
	l.check(t, "before the new rule", true, true, false)
	if heals, last := l.passage.Heals(); heals != 3 || time.Since(last) > time.Minute {
		t.Errorf("%d heals, the last at %v", heals, last)
	}
	l.iptables(t, "-D", "FORWARD", "-j", "DROP")
	other := config(helperapi.EgressDeny)
	other.V4 = netip.MustParsePrefix("10.20.0.0/16")
	if _, err := l.passage.Ensure(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	if list := l.host.Run("iptables-nft", "-S"); !strings.Contains(list, "10.20.0.0/16") || strings.Contains(list, "10.10.10.0/24") {
		t.Errorf("rules do not follow the network:\n%s", list)
	}
	l.iptables(t, "-P", "FORWARD", "ACCEPT")
	l.ensure(t, helperapi.EgressDeny)
	if list := l.host.Run("iptables-nft", "-S"); strings.Contains(list, name) {
		t.Errorf("rules stay where nothing drops:\n%s", list)
	}
}

func TestNetnsCleanupTakesOnlyOurs(t *testing.T) {
	t.Parallel()
	nettest.Need(t, "iptables-nft")
	h := nettest.NewHost(t, "host")
	for _, comment := range []string{name, "honeysens-aaaaaaaaaaaa", "honeysens", "x" + name} {
		h.Run("iptables-nft", "-A", "FORWARD", "-m", "comment", "--comment", comment, "-j", "ACCEPT")
	}
	removed, err := Cleanup(t.Context(), nft.Config{NetNS: h.Fd()}, func(table string) bool { return table == name })
	if err != nil || len(removed) != 1 {
		t.Errorf("removed %v, %v", removed, err)
	}
	if n := strings.Count(h.Run("iptables-nft", "-S", "FORWARD"), "-A "); n != 3 {
		t.Errorf("%d rules are left, want the 3 of others", n)
	}
}

func TestNewWantsAContainerID(t *testing.T) {
	if _, err := New(zaptest.NewLogger(t), "x", nft.Config{}); err == nil {
		t.Error("a sensor without one was accepted")
	}
}

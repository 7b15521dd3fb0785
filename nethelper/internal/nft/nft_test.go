package nft

import (
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap/zaptest"

	"honeysens.org/dockersensor/nethelper/internal/ruleset"
	"honeysens.org/dockersensor/shared/helperapi"
	"honeysens.org/dockersensor/shared/nettest"
)

const sensorID = "0123456789abcdef"

// example is a sensor with two services.
func example() ruleset.Config {
	return ruleset.Config{
		SensorID: sensorID, Iface: "eth0", Bridge: "svc0",
		V4: netip.MustParsePrefix("10.10.10.0/24"), V6: netip.MustParsePrefix("fd12::/64"),
		GatewayV4: netip.MustParseAddr("10.10.10.1"), GatewayV6: netip.MustParseAddr("fd12::1"),
		CollectorPort: 5556, HostPorts: helperapi.HostPortsProtect, Egress: helperapi.EgressDeny,
		Protected: []helperapi.Port{{Protocol: helperapi.TCP, Number: 2222}, {Protocol: helperapi.UDP, Number: 2222}},
		Services: []ruleset.Service{
			{ID: "one", V4: netip.MustParseAddr("10.10.10.2"), V6: netip.MustParseAddr("fd12::2"), Ports: []helperapi.Assignment{
				{Port: helperapi.Port{Protocol: helperapi.TCP, Number: 22}, To: 2022},
				{Port: helperapi.Port{Protocol: helperapi.UDP, Number: 53}, To: 2053},
			}},
			{ID: "two", V4: netip.MustParseAddr("10.10.10.3"), V6: netip.MustParseAddr("fd12::3"), CatchAll: true},
		},
	}
}

func build(t testing.TB, cfg ruleset.Config) *ruleset.Table {
	t.Helper()
	table, err := ruleset.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func open(t testing.TB, h *nettest.Host) *Table {
	t.Helper()
	table, err := Open(zaptest.NewLogger(t), Config{NetNS: h.Fd()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = table.Close() })
	return table
}

func apply(t testing.TB, table *Table, cfg ruleset.Config) {
	t.Helper()
	if err := table.Apply(t.Context(), build(t, cfg)); err != nil {
		t.Fatal(err)
	}
}

// listing is what nft shows, without what differs from one moment to the next.
func listing(h *nettest.Host) string {
	// By family, since one that was lost comes back at the end.
	out := ""
	for _, family := range []string{"inet", "bridge", "ip", "ip6", "netdev"} {
		out += h.Run("nft", "list", "ruleset", family)
	}
	out = regexp.MustCompile(` expires [0-9smh]+`).ReplaceAllString(out, "")
	out = regexp.MustCompile(`packets \d+ bytes \d+`).ReplaceAllString(out, "packets 0 bytes 0")
	lines := strings.Split(out, "\n")
	var kept []string
	for _, line := range lines {
		if strings.HasPrefix(line, "#") || strings.HasPrefix(strings.TrimSpace(line), "flags owner") || strings.HasPrefix(strings.TrimSpace(line), "flags 0x") {
			continue
		}
		if line == "" && len(kept) > 0 && strings.HasPrefix(kept[len(kept)-1], "table") {
			continue
		}
		kept = append(kept, strings.Split(line, " # progname")[0])
	}
	return sortElements(strings.Join(kept, "\n"))
}

// sortElements sorts the elements of sets, which the kernel keeps in no order.
func sortElements(text string) string {
	return regexp.MustCompile(`(?s)elements = \{(.*?)\}`).ReplaceAllStringFunc(text, func(block string) string {
		body := strings.TrimSuffix(strings.TrimPrefix(block, "elements = {"), "}")
		var list []string
		for _, e := range strings.Split(body, ",") {
			list = append(list, strings.Join(strings.Fields(e), " "))
		}
		sortStrings(list)
		return "elements = { " + strings.Join(list, ", ") + " }"
	})
}

func variants() map[string]func(*ruleset.Config) {
	return map[string]func(*ruleset.Config){
		"protect": func(*ruleset.Config) {},
		"assigned, internet": func(c *ruleset.Config) {
			c.HostPorts, c.Egress = helperapi.HostPortsAssigned, helperapi.EgressInternet
			c.ForwardingWasOffV4 = true
		},
		"all, v4 only": func(c *ruleset.Config) {
			c.Egress, c.V6, c.GatewayV6 = helperapi.EgressAll, netip.Prefix{}, netip.Addr{}
			c.ForwardingWasOffV6, c.ForwardingAllV6 = true, true
			for i := range c.Services {
				c.Services[i].V6 = netip.Addr{}
			}
		},
		"no services": func(c *ruleset.Config) { c.Services = nil },
	}
}

func TestNetnsKernelHasWhatTheTextSays(t *testing.T) {
	t.Parallel()
	nettest.Need(t, "nft")
	for name, change := range variants() {
		t.Run(name, func(t *testing.T) {
			cfg := example()
			change(&cfg)
			byNetlink, byText := nettest.NewHost(t, "netlink"), nettest.NewHost(t, "text")
			apply(t, open(t, byNetlink), cfg)
			loadText(t, byText, build(t, cfg))
			got, want := listing(byNetlink), listing(byText)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("nft list ruleset (-text +netlink):\n%s", diff)
			}
			if !strings.Contains(got, "chain guard") {
				t.Errorf("there is no table:\n%s", got)
			}
		})
	}
}

func TestNetnsApplyIsIdempotentAndRemoveLeavesNothing(t *testing.T) {
	t.Parallel()
	nettest.Need(t, "nft")
	h := nettest.NewHost(t, "host")
	h.Run("nft", "add table inet theirs")
	before := listing(h)
	table := open(t, h)
	apply(t, table, example())
	once := listing(h)
	apply(t, table, example())
	if diff := cmp.Diff(once, listing(h)); diff != "" {
		t.Errorf("after the second time (-once +twice):\n%s", diff)
	}
	other := example()
	other.HostPorts, other.Egress = helperapi.HostPortsAssigned, helperapi.EgressInternet
	apply(t, table, other)
	apply(t, table, example())
	if diff := cmp.Diff(once, listing(h)); diff != "" {
		t.Errorf("after another and back (-once +now):\n%s", diff)
	}
	for range 2 {
		if err := table.Remove(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(before, listing(h)); diff != "" {
		t.Errorf("after remove (-before +after):\n%s", diff)
	}
}

func TestNetnsManyPorts(t *testing.T) {
	t.Parallel()
	nettest.Need(t, "nft")
	h := nettest.NewHost(t, "host")
	table := open(t, h)
	cfg := example()
	cfg.Services[0].Ports = ports(helperapi.MaxPorts)
	apply(t, table, cfg)
	apply(t, table, example())
	if got := listing(h); !strings.Contains(got, "tcp . 22 : 10.10.10.2 . 2022") || strings.Contains(got, "udp . 1000 ") {
		t.Errorf("ports of the second state are wrong:\n%s", got)
	}
}

func ports(n int) []helperapi.Assignment {
	list := make([]helperapi.Assignment, n)
	for i := range list {
		list[i] = helperapi.Assignment{Port: helperapi.Port{Protocol: helperapi.UDP, Number: uint16(i + 1)}, To: 1}
	}
	return list
}

func TestNetnsFailedApplyChangesNothing(t *testing.T) {
	t.Parallel()
	nettest.Need(t, "nft")
	h := nettest.NewHost(t, "host")
	table := open(t, h)
	apply(t, table, example())
	before := listing(h)
	bad := build(t, example())
	bad.Chains[1].Rules = append(bad.Chains[1].Rules, ruleset.Rule{Exprs: bad.Chains[0].Rules[0].Exprs[:1], Comment: "fine"})
	bad.Chains = append(bad.Chains, ruleset.Chain{Name: strings.Repeat("x", 500)})
	if err := table.Apply(t.Context(), bad); err == nil {
		t.Fatal("a table that the kernel must refuse was applied")
	}
	if diff := cmp.Diff(before, listing(h)); diff != "" {
		t.Errorf("after the failure (-before +after):\n%s", diff)
	}
	apply(t, table, example())
	if diff := cmp.Diff(before, listing(h)); diff != "" {
		t.Errorf("after the next time (-before +after):\n%s", diff)
	}
}

func TestNetnsRecordedFlowsAndCountersStay(t *testing.T) {
	t.Parallel()
	nettest.Need(t, "nft")
	h := nettest.NewHost(t, "host")
	table := open(t, h)
	cfg := example()
	apply(t, table, cfg)
	// Owned tables cannot be written by the nft program, so this is one that is not.
	if table.flags == 0 {
		t.Log("kernel knows no owners")
	}
	seedFlow(t, table)
	cfg.Services = append(cfg.Services, ruleset.Service{ID: "three", V4: netip.MustParseAddr("10.10.10.4")})
	cfg.Services[0].ID = "renamed"
	apply(t, table, cfg)
	got := listing(h)
	for _, want := range []string{"192.0.2.1 . 1000 . 192.0.2.2 . 53", `10.10.10.4 counter packets 0 bytes 0 comment "three"`, `comment "renamed"`} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing:\n%s", want, got)
		}
	}
	if strings.Contains(got, `comment "one"`) {
		t.Errorf("the old name is still there:\n%s", got)
	}
}

func TestNetnsHeartbeat(t *testing.T) {
	t.Parallel()
	nettest.Need(t, "nft")
	h := nettest.NewHost(t, "host")
	table := open(t, h)
	cfg := example()
	cfg.Heartbeat = 2 * time.Second
	apply(t, table, cfg)
	alive := func() bool {
		return strings.Contains(h.Run("nft", "list", "set", "inet", "honeysens-0123456789ab", "ifaces"), `"eth0"`)
	}
	if !alive() {
		t.Fatal("not redirected after apply")
	}
	until(t, "the heartbeat runs out", func() bool { return !alive() })
	if err := table.Heartbeat(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !alive() {
		t.Error("not redirected after a heartbeat")
	}
}

// until waits for a condition.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("waited in vain until %s", what)
		case <-tick.C:
		}
	}
}

func TestNetnsOwnerIsSafeAndAdopted(t *testing.T) {
	t.Parallel()
	nettest.Need(t, "nft")
	h := nettest.NewHost(t, "host")
	first, err := Open(zaptest.NewLogger(t), Config{NetNS: h.Fd()})
	if err != nil {
		t.Fatal(err)
	}
	apply(t, first, example())
	if first.flags == 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("kernel knows no owners")
		}
		t.Skip("kernel knows no owners")
	}
	before := listing(h)
	h.Run("nft", "flush", "ruleset")
	for _, family := range []string{"inet", "bridge"} {
		if out, err := h.Try("nft", "delete", "table", family, "honeysens-0123456789ab"); err == nil {
			t.Errorf("another could delete the table of family %s: %s", family, out)
		}
	}
	all := func(string) bool { return true }
	if removed, err := Cleanup(t.Context(), Config{NetNS: h.Fd()}, all); err == nil || len(removed) > 0 {
		t.Errorf("cleanup removed %v of a living sensor, error %v", removed, err)
	}
	if diff := cmp.Diff(before, listing(h)); diff != "" {
		t.Fatalf("after a flush by others (-before +after):\n%s", diff)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := open(t, h)
	apply(t, second, example())
	if diff := cmp.Diff(before, listing(h)); diff != "" {
		t.Errorf("after adoption (-before +after):\n%s", diff)
	}
	if _, err := h.Try("nft", "delete", "table", "inet", "honeysens-0123456789ab"); err == nil {
		t.Error("another could delete the adopted table")
	}
}

func TestNetnsCleanup(t *testing.T) {
	t.Parallel()
	nettest.Need(t, "nft")
	h := nettest.NewHost(t, "host")
	h.Run("nft", "add table inet honeysens-aaaaaaaaaaaa; add table inet honeysens-bbbbbbbbbbbb; add table inet honeysens; add table ip honeysens-aaaaaaaaaaaa;"+
		"add table bridge honeysens-aaaaaaaaaaaa; add table bridge honeysens-cccccccccccc; add table bridge honeysens-bbbbbbbbbbbb")
	removed, err := Cleanup(t.Context(), Config{NetNS: h.Fd()}, func(name string) bool { return name != "honeysens-bbbbbbbbbbbb" })
	if err != nil || !cmp.Equal(removed, []string{"honeysens-aaaaaaaaaaaa", "honeysens-cccccccccccc"}) {
		t.Errorf("removed %v, %v", removed, err)
	}
	want := "table inet honeysens-bbbbbbbbbbbb\ntable inet honeysens\ntable ip honeysens-aaaaaaaaaaaa\ntable bridge honeysens-bbbbbbbbbbbb\n"
	if diff := cmp.Diff(want, h.Run("nft", "list", "tables")); diff != "" {
		t.Errorf("tables (-want +got):\n%s", diff)
	}
}

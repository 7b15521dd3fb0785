package passage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap/zaptest"

	"honeysens.org/dockersensor/nethelper/internal/nft"
	"honeysens.org/dockersensor/shared/helperapi"
	"honeysens.org/dockersensor/shared/nettest"
)

func TestListing(t *testing.T) {
	const ours = "-m comment --comment " + name + " -j ACCEPT"
	tests := map[string]struct {
		rules     string
		blocks    bool
		userChain string
		has       bool
	}{
		"nothing drops":                    {"-P FORWARD ACCEPT", false, chainForward, false},
		"policy":                           {"-P FORWARD DROP", true, chainForward, false},
		"of another chain":                 {"-P INPUT DROP", false, chainForward, false},
		"last rule":                        {"-P FORWARD ACCEPT|-A FORWARD -j DROP", true, chainForward, false},
		"reject with an answer":            {"-P FORWARD ACCEPT|-A FORWARD -j REJECT --reject-with icmp-port-unreachable", true, chainForward, false},
		"with a comment":                   {"-P FORWARD ACCEPT|-A FORWARD -m comment --comment no -j DROP", true, chainForward, false},
		"with words":                       {`-P FORWARD ACCEPT|-A FORWARD -m comment --comment "no -j way" -j DROP`, true, chainForward, false},
		"with a condition":                 {"-P FORWARD ACCEPT|-A FORWARD -i eth9 -j DROP", false, chainForward, false},
		"a comment and a condition":        {"-P FORWARD ACCEPT|-A FORWARD -m comment --comment no -p icmp -j DROP", false, chainForward, false},
		"Docker":                           {"-P FORWARD DROP|-N DOCKER-USER|-A FORWARD -j DOCKER-USER", true, dockerUser, false},
		"Docker, flushed":                  {"-P FORWARD DROP|-N DOCKER-USER", true, chainForward, false},
		"Docker behind a drop":             {"-P FORWARD ACCEPT|-A FORWARD -j DROP|-A FORWARD -j DOCKER-USER", true, chainForward, false},
		"Docker for some":                  {"-P FORWARD DROP|-A FORWARD -i eth9 -j DOCKER-USER", true, chainForward, false},
		"with our rule":                    {"-P FORWARD DROP|-A FORWARD " + ours, true, chainForward, true},
		"with our rule twice":              {"-P FORWARD DROP|-A FORWARD " + ours + "|-A FORWARD " + ours, true, chainForward, false},
		"with our rule behind":             {"-P FORWARD ACCEPT|-A FORWARD -j DROP|-A FORWARD " + ours, true, chainForward, false},
		"with our rule in front":           {"-P FORWARD ACCEPT|-A FORWARD " + ours + "|-A FORWARD -j DROP", true, chainForward, true},
		"with our rule in the wrong chain": {"-P FORWARD DROP|-A DOCKER-USER " + ours, true, chainForward, false},
	}
	for title, test := range tests {
		t.Run(title, func(t *testing.T) {
			rules := listing(strings.Split(test.rules, "|"))
			if got := rules.blocks(chainForward, config(helperapi.EgressDeny)); got != test.blocks {
				t.Errorf("blocks is %v", got)
			}
			if got := rules.userChain(config(helperapi.EgressDeny)); got != test.userChain {
				t.Errorf("chain for others is %s", got)
			}
			if got := rules.has([]insertion{{chain: chainForward}}, name, config(helperapi.EgressDeny)); got != test.has {
				t.Errorf("has is %v", got)
			}
		})
	}
}

func FuzzListing(f *testing.F) {
	for _, seed := range []string{
		"", "-P FORWARD DROP\n", "-A FORWARD -m comment --comment " + name + " -j ACCEPT\n", "-A\n-A FORWARD\n-A FORWARD -j\n",
		"-A FORWARD -m comment --comment \"a -j b\" -j DROP\n", "-A FORWARD -m comment --comment\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		rules := listing(strings.Split(text, "\n"))
		for _, l := range legacies() {
			wanted := l.wanted(rules, name, config(helperapi.EgressAll))
			if len(wanted) > 0 && !rules.blocks(chainForward, config(helperapi.EgressDeny)) && !rules.blocks(chainInput, config(helperapi.EgressDeny)) {
				t.Errorf("a passage where nothing drops: %+v", wanted)
			}
			rules.has(wanted, name, config(helperapi.EgressDeny))
		}
		for _, rule := range rules.ours(func(comment string) bool { return comment == name }) {
			if len(rule) < 2 {
				t.Errorf("rule of ours without a chain: %q", rule)
			}
		}
	})
}

func TestZeroCounters(t *testing.T) {
	at := legacies()[0].layout
	entry := bytes.Repeat([]byte{7}, at.size+8)
	binary.NativeEndian.PutUint16(entry[at.next:], uint16(len(entry))) // #nosec G115 -- 120
	table := append(bytes.Clone(entry), entry...)
	at.zeroCounters(table)
	for _, begin := range []int{0, len(entry)} {
		want := bytes.Clone(entry)
		clear(want[at.counters:at.size])
		if diff := cmp.Diff(want, table[begin:begin+len(entry)]); diff != "" {
			t.Errorf("entry at %d (-want +got):\n%s", begin, diff)
		}
	}
	for _, next := range []uint16{0, 1, 65535} {
		binary.NativeEndian.PutUint16(table[at.next:], next)
		at.zeroCounters(table) // ends
	}
}

func TestNetnsLegacyFollows(t *testing.T) {
	t.Parallel()
	l := newLab(t, helperapi.EgressAll)
	nettest.Need(t, "iptables-legacy", "ip6tables-legacy")
	ip := func(args ...string) {
		l.host.Run("iptables-legacy", args...)
		l.host.Run("ip6tables-legacy", args...)
	}
	names := func() string {
		return l.host.Run("cat", "/proc/net/ip_tables_names", "/proc/net/ip6_tables_names") + l.host.Run("nft", "list", "tables", "ip")
	}
	if found := l.ensure(t, helperapi.EgressAll); len(found) != 0 || names() != "" {
		t.Fatalf("without a firewall: found %+v, tables %q", found, names())
	}
	ip("-P", "FORWARD", "ACCEPT")
	before := l.everything(t)
	if found := l.ensure(t, helperapi.EgressAll); len(found) != 0 {
		t.Errorf("where nothing drops: found %+v", found)
	}
	if diff := cmp.Diff(before, l.everything(t)); diff != "" {
		t.Errorf("where nothing drops (-before +after):\n%s", diff)
	}
	ip("-P", "FORWARD", "DROP")
	ip("-A", "INPUT", "-j", "REJECT")
	before = l.everything(t)
	l.check(t, "with the firewall only", false, false, false)
	found := l.ensure(t, helperapi.EgressAll)
	if len(found) != 2 || found[0].Kind != kindLegacy || found[0].Problem != "" || !strings.Contains(found[0].Passage, "iptables-legacy -I FORWARD -m conntrack --ctstate DNAT --ctreplsrc 10.10.10.0/24") {
		t.Errorf("found %+v", found)
	}
	once := l.everything(t)
	l.ensure(t, helperapi.EgressAll)
	if diff := cmp.Diff(once, l.everything(t)); diff != "" {
		t.Errorf("the second time (-once +twice):\n%s", diff)
	}
	// What is wanted now is another thing than before.
	l.ensure(t, helperapi.EgressDeny)
	if rules := l.host.Run("iptables-legacy", "-S"); strings.Contains(rules, "ctorigsrc") || strings.Count(rules, name) != 2 {
		t.Errorf("rules do not follow:\n%s", rules)
	}
	if err := l.passage.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, l.everything(t)); diff != "" {
		t.Errorf("after remove (-before +after):\n%s", diff)
	}
}

func TestNetnsLegacyWithoutItsProgram(t *testing.T) {
	t.Parallel()
	nettest.Need(t, "iptables-legacy")
	h := nettest.NewHost(t, "host")
	h.Run("iptables-legacy", "-P", "FORWARD", "DROP")
	p, err := New(zaptest.NewLogger(t), sensorID, nft.Config{NetNS: h.Fd()})
	if err != nil {
		t.Fatal(err)
	}
	missing := legacies()[0]
	missing.program += "-missing"
	found, opened, err := p.openLegacy(t.Context(), missing, config(helperapi.EgressDeny))
	if err != nil || opened || len(found) != 1 || found[0].Passage != "" || !strings.Contains(found[0].Problem, "-I FORWARD -m conntrack --ctstate DNAT --ctreplsrc 10.10.10.0/24") {
		t.Errorf("found %+v, %v, %v", found, opened, err)
	}
}

func TestCannotOpenSaysWhatToDo(t *testing.T) {
	found := cannotOpen([]helperapi.Firewall{{Kind: kindNftables, Passage: "the rule"}}, errors.New("cause"))
	if f := found[0]; f.Passage != "" || !strings.Contains(f.Problem, "cause") || !strings.HasSuffix(f.Problem, "by hand: the rule") {
		t.Errorf("found %+v", f)
	}
}

func TestNoPassageForAFamilyThatIsNotUsed(t *testing.T) {
	cfg := config(helperapi.EgressDeny)
	cfg.V6, cfg.GatewayV6 = netip.Prefix{}, netip.Addr{}
	drops := listing{"-P FORWARD DROP", "-P INPUT DROP"}
	if got := legacies()[1].wanted(drops, name, cfg); len(got) != 0 {
		t.Errorf("wanted %+v", got)
	}
}

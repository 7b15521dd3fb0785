package passage

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"honeysens.org/dockersensor/shared/helperapi"
)

// conditional are firewalls that let pass what no rule is about. The rules keep
// attackers from services, or services from the collector, by the interface.
func conditional() map[string]struct {
	setUp      func(*testing.T, *lab)
	kind       string
	redirected bool // without the passage
	collector  bool
} {
	type firewall = struct {
		setUp      func(*testing.T, *lab)
		kind       string
		redirected bool
		collector  bool
	}
	iptables := func(programs, lines string) func(*testing.T, *lab) {
		return func(t *testing.T, l *lab) {
			t.Helper()
			for line := range strings.Lines(lines) {
				for _, program := range strings.Fields(programs) {
					if words := strings.Fields(line); len(words) > 0 {
						l.host.Run(program, words...)
					}
				}
			}
		}
	}
	nft := func(text string) func(*testing.T, *lab) {
		return func(t *testing.T, l *lab) { t.Helper(); l.host.Run("nft", text) }
	}
	const programs, legacy = "iptables-nft ip6tables-nft", "iptables-legacy ip6tables-legacy"
	return map[string]firewall{
		"iptables, by interface":     {iptables(programs, "-A FORWARD -i eth0 -j DROP"), kindIptables, false, true},
		"iptables, new connections":  {iptables(programs, "-A FORWARD -i eth0 -m conntrack --ctstate NEW -j REJECT"), kindIptables, false, true},
		"iptables, state":            {iptables(programs, "-A FORWARD -i eth+ -p tcp -m state --state NEW,INVALID -j DROP"), kindIptables, false, true},
		"iptables, answers":          {iptables(programs, "-A FORWARD ! -i eth0 -o eth0 -j DROP"), kindIptables, false, true},
		"iptables, in another chain": {iptables(programs, "-N outside\n-A outside -i lo -j RETURN\n-A outside -j DROP\n-A FORWARD -i eth0 -j outside"), kindIptables, false, true},
		"iptables, all but one":      {iptables(programs, "-A INPUT ! -i eth0 -p tcp -j DROP"), kindIptables, true, false},
		"legacy, by interface":       {iptables(legacy, "-A FORWARD -i eth0 -j DROP"), kindLegacy, false, true},
		"legacy, in another chain":   {iptables(legacy, "-N outside\n-A outside -m comment --comment no -j REJECT\n-A FORWARD -i eth0 -m conntrack --ctstate NEW -j outside"), kindLegacy, false, true},
		"nft, by name":               {nft(`table inet fw { chain f { type filter hook forward priority 5; iifname "eth0" drop; }; }`), kindNftables, false, true},
		"nft, by index":              {nft(`table inet fw { chain f { type filter hook forward priority 5; iif "eth0" meta l4proto tcp reject; }; }`), kindNftables, false, true},
		"nft, new connections":       {nft(`table inet fw { chain f { type filter hook forward priority 5; iifname "eth0" ct state invalid,new drop; }; }`), kindNftables, false, true},
		"nft, in another chain":      {nft(`table ip fw { chain o { counter drop; }; chain f { type filter hook forward priority 5; iifname "eth*" jump o; }; }; table ip6 fw { chain f { type filter hook forward priority 5; oifname != "eth0" drop; }; }`), kindNftables, false, true},
	}
}

func TestNetnsConditionalDrops(t *testing.T) {
	for title, firewall := range conditional() {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, helperapi.EgressDeny)
			firewall.setUp(t, l)
			before := l.everything(t)
			l.check(t, "before", firewall.redirected, firewall.collector, false)
			found := l.ensure(t, helperapi.EgressDeny)
			if len(found) == 0 || found[0].Kind != firewall.kind || found[0].Passage == "" {
				t.Errorf("found %+v", found)
			}
			l.check(t, "with the passage", true, true, false)
			once := l.everything(t)
			l.ensure(t, helperapi.EgressDeny)
			if diff := cmp.Diff(once, l.everything(t)); diff != "" {
				t.Errorf("the second time (-once +twice):\n%s", diff)
			}
			if diff := cmp.Diff(before, l.withoutPassage(t)); diff != "" {
				t.Errorf("after remove (-before +after):\n%s", diff)
			}
		})
	}
}

// TestNetnsReasonsOfOthersStay: a rule that is about somebody, or about another
// network of the host, is none of the sensor's business.
func TestNetnsReasonsOfOthersStay(t *testing.T) {
	l := newLab(t, helperapi.EgressDeny)
	for _, line := range []string{
		"-A FORWARD -i docker0 -j DROP", "-A FORWARD ! -i docker0 -o docker0 -j DROP", "-A FORWARD -i eth0 -o docker0 -j REJECT",
		"-A FORWARD -i eth0 -p tcp --dport 25 -j DROP", "-A FORWARD -i eth0 -m conntrack --ctstate INVALID -j DROP",
		"-A FORWARD ! -p tcp -j DROP", "-A INPUT -i eth0 -p tcp --dport 1 -j DROP",
		"-A FORWARD -i eth0 -o svc0 -j ACCEPT", "-A FORWARD -i svc0 -j ACCEPT", "-A FORWARD -i eth0 -j DROP",
	} {
		for _, program := range []string{"iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy"} {
			l.host.Run(program, strings.Fields(line)...)
		}
	}
	l.host.Run("iptables-nft", "-I", "FORWARD", "-s", "198.51.100.7", "-j", "DROP")
	l.host.Run("nft", `table inet fw {
		set bad { type ipv4_addr; elements = { 198.51.100.8 }; }
		chain f { type filter hook forward priority 5; ip saddr @bad drop; ct state invalid drop; ct state untracked drop; iifname { "eth1", "eth2" } drop; iifname "eth0" limit rate 1/hour log; oif "lo" drop; }
	}`)
	before := l.everything(t)
	if found := l.ensure(t, helperapi.EgressDeny); len(found) != 0 {
		t.Errorf("found %+v", found)
	}
	if diff := cmp.Diff(before, l.everything(t)); diff != "" {
		t.Errorf("touched (-before +after):\n%s", diff)
	}
	l.check(t, "with them", true, true, false)
}

func TestParseLine(t *testing.T) {
	tests := map[string]bool{
		"-j DROP":                        true,
		"-m comment --comment x -j DROP": true,
		`-m comment --comment "say \"-j ACCEPT\" -i eth9" -i eth0 -j DROP`: true,
		"-i eth0 -j DROP":                        true,
		"! -i eth1 -j REJECT --reject-with tcp":  true,
		"! -i eth0 -o svc0 -j DROP":              false,
		"-i eth0 -s 192.0.2.7/32 -j DROP":        false,
		"-i eth0 -m limit --limit 1/sec -j DROP": false,
		"-i eth0 -j LOG":                         false,
		"-i eth0 -j ACCEPT":                      false,
		"":                                       false,
		"-j":                                     false,
		"-m comment --comment \"":                false,
		"! ! -i":                                 false,
	}
	for text, blocks := range tests {
		rules := listing{"-P FORWARD ACCEPT\n", "-A FORWARD " + text + "\n"}
		if got := rules.blocks(chainForward, config(helperapi.EgressDeny)); got != blocks {
			t.Errorf("%q: blocks %v, want %v", text, got, blocks)
		}
	}
}

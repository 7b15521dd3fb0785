package passage

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"

	"honeysens.org/dockersensor/nethelper/internal/nft"
	"honeysens.org/dockersensor/nethelper/internal/ruleset"
	"honeysens.org/dockersensor/shared/helperapi"
)

// Chains of the iptables programs. Docker keeps DOCKER-USER for the rules of
// others, and jumps to it before its own.
const (
	chainForward = "FORWARD"
	chainInput   = "INPUT"
	dockerUser   = "DOCKER-USER"
)

// Kinds of firewalls, as helperapi.Firewall names them.
const (
	kindIptables = "iptables-nft"
	kindNftables = "nftables"
	kindLegacy   = "iptables-legacy"
)

// passages returns the rules that the table needs, and the firewalls it has.
func (t table) passages(name string, cfg Config) ([]insertion, []helperapi.Firewall) {
	var (
		wanted []insertion
		found  []helperapi.Firewall
	)
	for _, chain := range t.chains {
		if !t.blocks(chain) {
			continue
		}
		var rules []insertion
		switch *chain.Hooknum {
		case *nftables.ChainHookForward:
			rules = t.forward(chain, name, cfg)
		case *nftables.ChainHookInput:
			rules = t.input(chain, name, cfg)
		}
		if len(rules) == 0 {
			continue
		}
		wanted = append(wanted, rules...)
		found = append(found, helperapi.Firewall{Kind: t.kind(chain), Passage: t.describe(rules)})
	}
	return wanted, found
}

// blocks tells whether packets that no other rule of the chain accepts are lost.
func (t table) blocks(chain *nftables.Chain) bool {
	if chain.Hooknum == nil || chain.Type != nftables.ChainTypeFilter {
		return false
	}
	if chain.Policy != nil && *chain.Policy == nftables.ChainPolicyDrop {
		return true
	}
	return t.firstBlock(chain.Name) < len(t.rules)
}

// firstBlock returns which rule of the table is the first one in the base chain
// that takes away what is ours on one of its ways, there or in a chain that it
// leads to; or the number of rules.
func (t table) firstBlock(chain string) int { return t.firstBlockOn(t.ways(chain), chain) }

func (t table) firstBlockOn(ways []way, chain string) int {
	first := len(t.rules)
	for _, way := range ways {
		if i, end := t.walk(chain, way, maxDepth); end == nft.Blocks {
			first = min(first, i)
		}
	}
	return first
}

// way is how packets of ours come and go, by names of interfaces; "" is the host.
type way struct{ in, out string }

// ways are those through a chain. DOCKER-USER, which the kernel does not enter by
// itself, is for what is forwarded.
func (t table) ways(chain string) []way {
	at := slices.IndexFunc(t.chains, func(c *nftables.Chain) bool { return c.Name == chain && c.Hooknum != nil })
	switch {
	case at < 0, *t.chains[at].Hooknum == *nftables.ChainHookForward:
		return forwardWays(t.cfg)
	case *t.chains[at].Hooknum == *nftables.ChainHookInput:
		return inputWays(t.cfg)
	default:
		return nil
	}
}

func forwardWays(cfg Config) []way { return []way{{cfg.Iface, cfg.Bridge}, {cfg.Bridge, cfg.Iface}} }
func inputWays(cfg Config) []way   { return []way{{cfg.Bridge, ""}} }

// maxDepth is how far chains lead to others, in the kernel.
const maxDepth = 16

// walk follows packets on a way through a chain, and returns the rule at which
// that ends, and how. Where it goes on, or goes back, there is no such rule.
func (t table) walk(chain string, w way, depth int) (int, nft.Verdict) {
	for i, rule := range t.rules {
		// With a rule of a sensor in front the others are there all the same.
		if rule.Chain != chain || !t.takes(rule, w) || ruleset.IsTableName(rule.Comment) {
			continue
		}
		end := rule.Verdict
		if rule.Jumps != "" && depth > 0 {
			_, end = t.walk(rule.Jumps, w, depth-1)
		}
		switch end {
		case nft.Blocks, nft.Accepts:
			return i, end
		case nft.Returns:
			return len(t.rules), nft.GoesOn
		case nft.GoesOn:
		}
	}
	return len(t.rules), nft.GoesOn
}

// takes tells whether a rule is for all new connections on a way. Who else has
// a condition, such as an address, has a reason that is not the sensor's.
func (t table) takes(rule nft.ForeignRule, w way) bool {
	if rule.Conditional {
		return false
	}
	for _, on := range rule.On {
		name := w.in
		if on.Out {
			name = w.out
		}
		is := on.Name == name
		switch {
		case on.Name == "" && !on.Prefix:
			is = t.names[on.Index] == name
		case on.Prefix:
			is = strings.HasPrefix(name, on.Name)
		}
		if is == on.Not || name == "" && on.Out {
			return false
		}
	}
	return true
}

// kind tells whose chain it is by its name: the iptables programs write theirs
// in capitals into tables of one family.
func (t table) kind(chain *nftables.Chain) string {
	if t.Family != nftables.TableFamilyINet && (chain.Name == chainForward || chain.Name == chainInput) {
		return kindIptables
	}
	return kindNftables
}

func (t table) describe(rules []insertion) string {
	texts := make([]string, len(rules))
	for i, rule := range rules {
		texts[i] = rule.text
	}
	return fmt.Sprintf("%s %s: %s", t, rules[0].chain, strings.Join(texts, "; "))
}

// forward are the rules for connections between attackers and services, and,
// where the policy opens that, of services with the world.
func (t table) forward(chain *nftables.Chain, name string, cfg Config) []insertion {
	if cfg.Egress == helperapi.EgressDeny && t.passesDNAT(chain) {
		return nil
	}
	if t.kind(chain) == kindNftables {
		return nativeForward(chain.Name, name, cfg)
	}
	network := cfg.V4
	if t.Family == nftables.TableFamilyIPv6 {
		network = cfg.V6
	}
	if !network.IsValid() {
		return nil
	}
	return iptablesForward(t.userChain(chain), name, network, cfg.Egress)
}

// passesDNAT tells whether the chain itself lets pass what is redirected, and
// the answers, as firewalld's does.
func (t table) passesDNAT(chain *nftables.Chain) bool {
	for _, rule := range t.rules[:t.firstBlock(chain.Name)] {
		if rule.Chain == chain.Name && rule.AcceptsDNAT {
			return true
		}
	}
	return false
}

// userChain is DOCKER-USER where all packets of the chain get there. After
// "iptables -F" Docker's chains may still exist, but nothing leads to them.
func (t table) userChain(chain *nftables.Chain) string {
	for _, rule := range t.rules[:t.firstBlock(chain.Name)] {
		if rule.Chain == chain.Name && rule.JumpsAll() == dockerUser {
			return dockerUser
		}
	}
	return chain.Name
}

// input are the rules for connections of services to the collector.
func (t table) input(chain *nftables.Chain, name string, cfg Config) []insertion {
	if t.kind(chain) == kindNftables {
		return nativeInput(chain.Name, name, cfg)
	}
	if t.Family == nftables.TableFamilyIPv6 {
		return iptablesInput(chain.Name, name, cfg.Bridge, cfg.GatewayV6, cfg.CollectorPort)
	}
	return iptablesInput(chain.Name, name, cfg.Bridge, cfg.GatewayV4, cfg.CollectorPort)
}

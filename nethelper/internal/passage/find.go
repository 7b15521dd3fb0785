package passage

import (
	"fmt"
	"strings"

	"github.com/google/nftables"

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

// firstBlock returns which rule of the table is the first one in the chain that
// blocks everything, or the number of rules.
func (t table) firstBlock(chain string) int {
	for i, rule := range t.rules {
		if rule.Chain == chain && rule.BlocksAll {
			return i
		}
	}
	return len(t.rules)
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
		if rule.Chain == chain.Name && rule.JumpsAll == dockerUser {
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

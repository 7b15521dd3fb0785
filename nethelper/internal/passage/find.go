package passage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"honeysens.org/dockersensor/nethelper/internal/nft"
	"honeysens.org/dockersensor/shared/helperapi"
)

// dockerUser is the chain that Docker keeps for the rules of others, and jumps
// to before its own.
const dockerUser = "DOCKER-USER"

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
	for _, rule := range t.rules {
		if rule.Chain == chain.Name && rule.BlocksAll {
			return true
		}
	}
	return false
}

// kind tells whose chain it is by its name: the iptables programs write theirs
// in capitals into tables of one family.
func (t table) kind(chain *nftables.Chain) string {
	if t.Family != nftables.TableFamilyINet && (chain.Name == "FORWARD" || chain.Name == "INPUT") {
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

// userChain is DOCKER-USER for a chain that Docker filters in.
func (t table) userChain(chain *nftables.Chain) string {
	for _, c := range t.chains {
		if c.Name == dockerUser {
			return c.Name
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

// findLegacy reports filter tables of iptables-legacy. Their rules cannot be
// reached by netlink, and whether they drop is not visible here.
func findLegacy(where nft.Config, cfg Config) ([]helperapi.Firewall, error) {
	var found []helperapi.Firewall
	for _, f := range []struct {
		file, program, network string
		wanted                 bool
	}{
		{"ip_tables_names", "iptables-legacy", cfg.V4.String(), cfg.V4.IsValid()},
		{"ip6_tables_names", "ip6tables-legacy", cfg.V6.String(), cfg.V6.IsValid()},
	} {
		names, err := readNet(where, f.file)
		if err != nil {
			return found, err
		}
		if !f.wanted || !hasLine(names, "filter") {
			continue
		}
		rule := fmt.Sprintf("-m conntrack --ctstate DNAT --ctreplsrc %s -j ACCEPT", f.network)
		found = append(found, helperapi.Firewall{Kind: kindLegacy, Problem: fmt.Sprintf(
			"the host has a filter table of %s, which the sensor does not change; if %q shows that it drops, run %q",
			f.program, f.program+" -S FORWARD", f.program+" -I FORWARD "+rule)})
	}
	return found, nil
}

func hasLine(text, line string) bool {
	for l := range strings.Lines(text) {
		if strings.TrimSpace(l) == line {
			return true
		}
	}
	return false
}

// readNet reads a file of /proc/net in the namespace; one that does not exist
// is empty.
func readNet(where nft.Config, file string) (string, error) {
	var (
		data []byte
		err  error
		done = make(chan struct{})
	)
	// The thread is never unlocked, so it ends with its goroutine and its
	// namespace is nobody else's.
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if where.NetNS != 0 {
			if err = unix.Setns(where.NetNS, unix.CLONE_NEWNET); err != nil {
				return
			}
		}
		data, err = os.ReadFile("/proc/thread-self/net/" + file)
	}()
	<-done
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read %s: %w", file, err)
	}
	return string(data), nil
}

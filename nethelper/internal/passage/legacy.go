package passage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"honeysens.org/dockersensor/nethelper/internal/nft"
	"honeysens.org/dockersensor/nethelper/internal/ruleset"
	"honeysens.org/dockersensor/shared/helperapi"
)

// legacyTimeout bounds one run of a program, which waits lockSeconds for the
// lock that the iptables programs share.
const (
	legacyTimeout = 5 * time.Second
	lockSeconds   = "2"
	// maxListing bounds what is read of a listing; 20,000 rules are 2 MB.
	maxListing = 16 << 20
)

// legacy is the filter table of one family in the kernel's old interface. Only
// the program of that interface can read and write it.
type legacy struct {
	program string
	// names is the file in /proc/net that lists the tables which exist. The
	// program makes those that do not, so it must not be run before a look there.
	names string
	v6    bool
	// level is that of the socket options, layout where an entry has what.
	level  int
	layout entryLayout
}

func legacies() []legacy {
	return []legacy{
		{program: "/usr/sbin/iptables-legacy", names: "ip_tables_names", level: unix.SOL_IP, layout: entryLayout{next: 90, counters: 96, size: 112}},
		{program: "/usr/sbin/ip6tables-legacy", names: "ip6_tables_names", v6: true, level: unix.SOL_IPV6, layout: entryLayout{next: 142, counters: 152, size: 168}},
	}
}

// listing is what "iptables-legacy -S" prints, a line each.
type listing []string

// inUse tells whether the family has a filter table. It makes none.
func (l legacy) inUse(where nft.Config) (bool, error) {
	used := false
	err := inNetNS(where, func() error {
		names, err := os.ReadFile("/proc/thread-self/net/" + l.names)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("read %s: %w", l.names, err)
		}
		used = hasLine(string(names), "filter")
		return nil
	})
	return used, err
}

// list returns the filter table's rules, and false when there is no such table.
func (l legacy) list(ctx context.Context, where nft.Config) (listing, bool, error) {
	used, err := l.inUse(where)
	if err != nil || !used {
		return nil, false, err
	}
	out, err := l.run(ctx, where, "-S")
	if err != nil {
		return nil, true, err
	}
	return slices.Collect(strings.Lines(out)), true, nil
}

// run starts the program in the namespace. The arguments are the package's own;
// no shell reads them.
func (l legacy) run(ctx context.Context, where nft.Config, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, legacyTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, l.program, append([]string{"-w", lockSeconds}, args...)...) // #nosec G204 -- one of two constant programs
	cmd.Env = []string{"LC_ALL=C"}
	out := &bounded{left: maxListing}
	cmd.Stdout, cmd.Stderr = out, out
	if err := inNetNS(where, cmd.Start); err != nil {
		return "", err
	}
	if err := cmd.Wait(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %.200s", l.program, strings.Join(args, " "), err, strings.TrimSpace(out.text.String()))
	}
	return out.text.String(), nil
}

// bounded fails when more is written than it may hold, which ends the program.
type bounded struct {
	text strings.Builder
	left int
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 {
		return 0, errors.New("listing is too long")
	}
	return b.text.Write(p)
}

// blocks tells whether packets that no other rule of the chain accepts are lost.
func (rules listing) blocks(chain string, cfg Config) bool {
	return rules.firstBlock(chain, cfg) >= 0
}

// firstBlock returns the line from which on packets of ours are lost, or -1; for
// the policy that is the number of lines.
func (rules listing) firstBlock(chain string, cfg Config) int {
	ways := forwardWays(cfg)
	if chain == chainInput {
		ways = inputWays(cfg)
	}
	if at := rules.table(cfg).firstBlockOn(ways, chain); at < len(rules) {
		return at
	}
	if slices.ContainsFunc(rules, func(line string) bool {
		return slices.Equal(strings.Fields(line), []string{"-P", chain, "DROP"})
	}) {
		return len(rules)
	}
	return -1
}

// userChain is DOCKER-USER where the forward chain gets there for all packets.
func (rules listing) userChain(cfg Config) string {
	block := rules.firstBlock(chainForward, cfg)
	for i, rule := range rules.table(cfg).rules {
		if rule.Chain == chainForward && i < block && rule.JumpsAll() == dockerUser {
			return dockerUser
		}
	}
	return chainForward
}

// ours returns the rules whose comment match accepts, as the words after -A:
// chain first.
func (rules listing) ours(match func(comment string) bool) [][]string {
	var found [][]string
	for _, line := range rules {
		words := strings.Fields(line)
		at := slices.Index(words, "--comment")
		if len(words) > 2 && words[0] == "-A" && at > 0 && at+1 < len(words) && match(words[at+1]) {
			found = append(found, words[1:])
		}
	}
	return found
}

// has tells whether all rules are there, none more, and each before the rule
// of its chain that blocks.
func (rules listing) has(wanted []insertion, name string, cfg Config) bool {
	count := map[string]int{}
	for _, rule := range rules.ours(func(comment string) bool { return comment == name }) {
		count[rule[0]]++
	}
	for _, rule := range wanted {
		block := rules.firstBlock(rule.chain, cfg)
		at := slices.IndexFunc(rules, func(line string) bool {
			return strings.HasPrefix(line, "-A "+rule.chain+" ") && strings.Contains(line, " --comment "+name+" ")
		})
		if at < 0 || block >= 0 && at > block {
			return false
		}
		count[rule.chain]--
	}
	for _, n := range count {
		if n != 0 {
			return false
		}
	}
	return true
}

// wanted are the rules that the family needs.
func (l legacy) wanted(rules listing, name string, cfg Config) []insertion {
	network, gateway := cfg.V4, cfg.GatewayV4
	if l.v6 {
		network, gateway = cfg.V6, cfg.GatewayV6
	}
	var wanted []insertion
	if network.IsValid() && rules.blocks(chainForward, cfg) {
		wanted = append(wanted, iptablesForward(rules.userChain(cfg), name, network, cfg.Egress)...)
	}
	if rules.blocks(chainInput, cfg) {
		wanted = append(wanted, iptablesInput(chainInput, name, cfg.Bridge, gateway, cfg.CollectorPort)...)
	}
	return wanted
}

// openLegacy brings the rules of one family up to date.
func (p *Passage) openLegacy(ctx context.Context, l legacy, cfg Config) ([]helperapi.Firewall, bool, error) {
	rules, used, err := l.list(ctx, p.where)
	if !used {
		return nil, false, err
	}
	if err != nil {
		p.complain(l.program, err)
		return l.unknown(p.name, cfg, err), false, ctx.Err()
	}
	wanted := l.wanted(rules, p.name, cfg)
	old := rules.ours(func(comment string) bool { return comment == p.name })
	if p.done == cfg && rules.has(wanted, p.name, cfg) || len(wanted)+len(old) == 0 {
		return describeLegacy(l, wanted), false, nil
	}
	if err := l.change(ctx, p.where, old, wanted); err != nil {
		p.complain(l.program, err)
		return cannotOpen(describeLegacy(l, wanted), err), false, ctx.Err()
	}
	delete(p.complaints, l.program)
	p.log.Info("legacy passage changed", zap.String("program", l.program), zap.Int("rules", len(wanted)), zap.Int("before", len(old)))
	return describeLegacy(l, wanted), len(wanted) > 0, nil
}

// unknown says what to look for by hand.
func (l legacy) unknown(name string, cfg Config, err error) []helperapi.Firewall {
	drops := listing{"-P " + chainForward + " DROP", "-P " + chainInput + " DROP"}
	found := describeLegacy(l, l.wanted(drops, name, cfg))
	for i := range found {
		found[i].Problem = fmt.Sprintf("whether the host's filter table drops what comes for services could not be read: %v. If it does, insert by hand: %s", err, found[i].Passage)
		found[i].Passage = ""
	}
	return found
}

func describeLegacy(l legacy, wanted []insertion) []helperapi.Firewall {
	if len(wanted) == 0 {
		return nil
	}
	texts := make([]string, len(wanted))
	for i, rule := range wanted {
		texts[i] = fmt.Sprintf("%s -I %s %s", filepath.Base(l.program), rule.chain, rule.text)
	}
	return []helperapi.Firewall{{Kind: kindLegacy, Passage: strings.Join(texts, "; ")}}
}

// change inserts before it deletes, so that the way stays open between.
func (l legacy) change(ctx context.Context, where nft.Config, old [][]string, wanted []insertion) error {
	for _, rule := range wanted {
		if _, err := l.run(ctx, where, append([]string{"-I", rule.chain}, strings.Fields(rule.text)...)...); err != nil {
			return err
		}
	}
	return l.remove(ctx, where, old)
}

// remove deletes rules as the program lists them. Of two that are equal the
// later one is in force just as well.
func (l legacy) remove(ctx context.Context, where nft.Config, rules [][]string) error {
	var errs error
	for _, rule := range rules {
		_, err := l.run(ctx, where, append([]string{"-D"}, rule...)...)
		errs = errors.Join(errs, err)
	}
	return errs
}

// cleanupLegacy is Cleanup for the tables of the old interface.
func cleanupLegacy(ctx context.Context, where nft.Config, match func(table string) bool) ([]string, error) {
	var (
		removed []string
		errs    error
	)
	for _, l := range legacies() {
		rules, _, err := l.list(ctx, where)
		old := rules.ours(func(comment string) bool { return ruleset.IsTableName(comment) && match(comment) })
		if err = errors.Join(err, l.remove(ctx, where, old)); err != nil {
			errs = errors.Join(errs, err)
			continue
		}
		for _, rule := range old {
			removed = append(removed, fmt.Sprintf("rule %s of %s", strings.Join(rule, " "), l.program))
		}
	}
	return removed, errs
}

func hasLine(text, line string) bool {
	for l := range strings.Lines(text) {
		if strings.TrimSpace(l) == line {
			return true
		}
	}
	return false
}

// inNetNS calls fn on a thread in the namespace, and waits for it.
func inNetNS(where nft.Config, fn func() error) error {
	if where.NetNS == 0 {
		return fn()
	}
	done := make(chan error)
	// The thread is never unlocked, so it ends with its goroutine and its
	// namespace is nobody else's.
	go func() {
		runtime.LockOSThread()
		if err := unix.Setns(where.NetNS, unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter the network namespace: %w", err)
			return
		}
		done <- fn()
	}()
	return <-done
}

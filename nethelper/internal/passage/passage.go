package passage

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"honeysens.org/dockersensor/nethelper/internal/nft"
	"honeysens.org/dockersensor/nethelper/internal/ruleset"
	"honeysens.org/dockersensor/shared/helperapi"
)

// Config says what has to get through.
type Config struct {
	// Iface is the interface that attackers arrive at.
	Iface string
	// Bridge is the interface of the services bridge.
	Bridge string
	// V4 and V6 are the networks on it; an unset one needs no passage.
	V4, V6               netip.Prefix
	GatewayV4, GatewayV6 netip.Addr
	CollectorPort        uint16
	Egress               helperapi.Egress
}

// Passage keeps the way of one sensor open. Its methods may be called from
// several goroutines.
type Passage struct {
	log   *zap.Logger
	name  string
	where nft.Config

	mu sync.Mutex
	// done is what the rules in the kernel were made for.
	done Config
	// heals counts how often a way had to be opened again, or through a new
	// firewall, while the same was wanted.
	heals    uint64
	lastHeal time.Time
	// complaints are the last ones about each firewall, which come again at every
	// look but are logged once.
	complaints map[string]string
}

// New makes the passage of the sensor with that container id.
func New(log *zap.Logger, sensorID string, where nft.Config) (*Passage, error) {
	name, err := ruleset.TableName(sensorID)
	if err != nil {
		return nil, err
	}
	return &Passage{log: log, name: name, where: where, complaints: map[string]string{}}, nil
}

// Ensure makes the passage where a firewall drops, and returns those that it
// found. It may be called as often as one likes: what is there already stays.
// A firewall that cannot be opened is no error, but a Firewall with a Problem.
func (p *Passage) Ensure(ctx context.Context, cfg Config) ([]helperapi.Firewall, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	conn, err := nft.Dial(p.where)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.CloseLasting() }()
	tables, err := listTables(p.where, conn)
	if err != nil {
		return nil, err
	}
	var (
		found  []helperapi.Firewall
		opened bool
	)
	names, err := interfaceNames(p.where, tables)
	if err != nil {
		return nil, err
	}
	for _, t := range tables {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		t.cfg, t.names = cfg, names
		firewalls, changed := p.open(t, cfg)
		found, opened = append(found, firewalls...), opened || changed
	}
	for _, l := range legacies() {
		firewalls, changed, err := p.openLegacy(ctx, l, cfg)
		if err != nil {
			return nil, err
		}
		found, opened = append(found, firewalls...), opened || changed
	}
	if opened && p.done == cfg {
		p.heals++
		p.lastHeal = time.Now()
	}
	p.done = cfg
	return found, nil
}

// Heals returns how often Ensure had to open the way again though nothing else
// was wanted, and when it did so last.
func (p *Passage) Heals() (uint64, time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.heals, p.lastHeal
}

// Remove takes every rule of this sensor away from other people's chains.
func (p *Passage) Remove(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done = Config{}
	_, err := Cleanup(ctx, p.where, func(table string) bool { return table == p.name })
	return err
}

// Cleanup is Remove for the sensors whose table name match accepts. It returns
// what it removed, in words.
func Cleanup(ctx context.Context, where nft.Config, match func(table string) bool) ([]string, error) {
	conn, err := nft.Dial(where)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.CloseLasting() }()
	tables, err := listTables(where, conn)
	if err != nil {
		return nil, err
	}
	var (
		removed []string
		errs    error
	)
	for _, t := range tables {
		if err := ctx.Err(); err != nil {
			return removed, errors.Join(errs, err)
		}
		old := t.ours(func(comment string) bool { return ruleset.IsTableName(comment) && match(comment) })
		if err := t.change(where, old, nil); err != nil {
			errs = errors.Join(errs, err)
			continue
		}
		for _, rule := range old {
			removed = append(removed, fmt.Sprintf("rule %s in chain %s of table %s", rule.Comment, rule.Chain, t))
		}
	}
	legacy, err := cleanupLegacy(ctx, where, match)
	return append(removed, legacy...), errors.Join(errs, err)
}

// open brings the rules in one table up to date, and tells whether it had to
// write some.
func (p *Passage) open(t table, cfg Config) ([]helperapi.Firewall, bool) {
	old := t.ours(func(comment string) bool { return comment == p.name })
	wanted, found := t.passages(p.name, cfg)
	if p.done == cfg && t.hasAll(old, wanted) {
		return found, false
	}
	if err := t.change(p.where, old, wanted); err != nil {
		p.complain(t.String(), err)
		return cannotOpen(found, err), false
	}
	delete(p.complaints, t.String())
	switch {
	case len(wanted) > 0:
		p.log.Info("passage made", zap.Stringer("table", t), zap.Int("rules", len(wanted)))
	case len(old) > 0:
		p.log.Info("passage closed", zap.Stringer("table", t), zap.Int("rules", len(old)))
	}
	return found, len(wanted) > 0
}

func (p *Passage) complain(firewall string, err error) {
	if text := err.Error(); p.complaints[firewall] != text {
		p.complaints[firewall] = text
		p.log.Error("passage cannot be changed", zap.String("firewall", firewall), zap.Error(err))
	}
}

// cannotOpen says of each firewall what the operator can do.
func cannotOpen(found []helperapi.Firewall, err error) []helperapi.Firewall {
	for i := range found {
		found[i].Problem = fmt.Sprintf("the rule that would let attackers through to the services could not be written: %v. Insert it by hand: %s", err, found[i].Passage)
		found[i].Passage = ""
	}
	return found
}

// table is one table of others, of a family that forwards IP.
type table struct {
	*nftables.Table
	chains []*nftables.Chain
	rules  []nft.ForeignRule
	// cfg is what has to get through, names are those of interfaces by index.
	cfg   Config
	names map[uint32]string
}

// String names the table as nft does.
func (t table) String() string {
	family := map[nftables.TableFamily]string{
		nftables.TableFamilyIPv4: "ip", nftables.TableFamilyIPv6: "ip6", nftables.TableFamilyINet: "inet",
	}[t.Family]
	return family + " " + t.Name
}

// listTables returns the tables of others that have chains which filter.
func listTables(where nft.Config, conn *nftables.Conn) ([]table, error) {
	chains, err := conn.ListChains()
	if err != nil {
		return nil, fmt.Errorf("list chains: %w", err)
	}
	var tables []table
	for _, chain := range chains {
		switch {
		case chain.Table == nil:
			continue
		case chain.Table.Family != nftables.TableFamilyIPv4 && chain.Table.Family != nftables.TableFamilyIPv6 && chain.Table.Family != nftables.TableFamilyINet:
			continue
		case chain.Table.Family == nftables.TableFamilyINet && ruleset.IsTableName(chain.Table.Name):
			continue
		}
		tables = addChain(tables, chain)
	}
	for i, t := range tables {
		if tables[i].rules, err = nft.ListRules(where, t.Table); err != nil {
			return nil, err
		}
	}
	return tables, nil
}

// interfaceNames returns the names of interfaces by their index, if any rule knows
// one by its index only.
func interfaceNames(where nft.Config, tables []table) (map[uint32]string, error) {
	byIndex := func(on nft.OnInterface) bool { return on.Index != 0 }
	if !slices.ContainsFunc(tables, func(t table) bool {
		return slices.ContainsFunc(t.rules, func(r nft.ForeignRule) bool { return slices.ContainsFunc(r.On, byIndex) })
	}) {
		return nil, nil
	}
	names := map[uint32]string{}
	err := inNetNS(where, func() error {
		links, err := net.Interfaces()
		for _, link := range links {
			names[uint32(link.Index)] = link.Name // #nosec G115 -- the kernel counts them in 31 bits
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	return names, nil
}

func addChain(tables []table, chain *nftables.Chain) []table {
	for i, t := range tables {
		if t.Family == chain.Table.Family && t.Name == chain.Table.Name {
			tables[i].chains = append(t.chains, chain)
			return tables
		}
	}
	return append(tables, table{Table: chain.Table, chains: []*nftables.Chain{chain}})
}

// ours returns the rules whose comment match accepts.
func (t table) ours(match func(comment string) bool) []nft.ForeignRule {
	var rules []nft.ForeignRule
	for _, rule := range t.rules {
		if match(rule.Comment) {
			rules = append(rules, rule)
		}
	}
	return rules
}

// insertion is a rule to put on top of a chain.
type insertion struct {
	chain    string
	exprs    []expr.Any
	userData []byte
	text     string
}

// hasAll tells whether each chain has as many of our rules as it should, all
// before the rule that blocks.
func (t table) hasAll(have []nft.ForeignRule, wanted []insertion) bool {
	count := map[string]int{}
	for _, rule := range have {
		count[rule.Chain]++
		if t.blocked(rule) {
			return false
		}
	}
	for _, rule := range wanted {
		count[rule.chain]--
	}
	for _, n := range count {
		if n != 0 {
			return false
		}
	}
	return true
}

// blocked tells whether no packet gets to the rule.
func (t table) blocked(rule nft.ForeignRule) bool {
	at := slices.IndexFunc(t.rules, func(r nft.ForeignRule) bool { return r.Handle == rule.Handle })
	return at > t.firstBlock(rule.Chain)
}

// advice says what the program itself can do that owns the table.
func (t table) advice() string {
	if t.Name == "firewalld" {
		return " (NftablesTableOwner=no in firewalld.conf ends that)"
	}
	return ""
}

// change deletes and inserts rules in one transaction. It uses a connection of
// its own, so that a refusal leaves nothing unread for the next one.
func (t table) change(where nft.Config, old []nft.ForeignRule, wanted []insertion) error {
	if len(old) == 0 && len(wanted) == 0 {
		return nil
	}
	conn, err := nft.Dial(where)
	if err != nil {
		return err
	}
	defer func() { _ = conn.CloseLasting() }()
	for _, rule := range old {
		err := conn.DelRule(&nftables.Rule{Table: t.Table, Chain: &nftables.Chain{Name: rule.Chain}, Handle: rule.Handle})
		if err != nil {
			return fmt.Errorf("change table %s: %w", t, err)
		}
	}
	for _, rule := range wanted {
		conn.InsertRule(&nftables.Rule{Table: t.Table, Chain: &nftables.Chain{Name: rule.chain}, Exprs: rule.exprs, UserData: rule.userData})
	}
	err = conn.Flush()
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("change table %s: the program that made it owns it%s: %w", t, t.advice(), err)
	}
	if err != nil {
		return fmt.Errorf("change table %s: %w", t, err)
	}
	return nil
}

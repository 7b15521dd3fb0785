package nft

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"honeysens.org/dockersensor/nethelper/internal/ruleset"
	"honeysens.org/dockersensor/shared/helperapi"
)

// state is what the kernel has of the table, as far as a transaction needs it.
type state struct {
	exists   bool
	chains   []string
	sets     map[string]*nftables.Set
	counters map[string]bool
	// counted are the elements of sets whose counters are kept.
	counted map[string][]nftables.SetElement
}

func (t *Table) read(name string) (*state, error) {
	s := &state{sets: map[string]*nftables.Set{}, counters: map[string]bool{}, counted: map[string][]nftables.SetElement{}}
	var err error
	if s.exists, err = t.exists(name); err != nil || !s.exists {
		return s, err
	}
	return s, errors.Join(t.readChains(s, name), t.readSets(s, name), t.readCounters(s, name))
}

func (t *Table) exists(name string) (bool, error) {
	tables, err := t.reader.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return false, fmt.Errorf("list tables: %w", err)
	}
	for _, table := range tables {
		if table.Name == name {
			return true, nil
		}
	}
	return false, nil
}

func (t *Table) readChains(s *state, name string) error {
	chains, err := t.reader.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return fmt.Errorf("list chains: %w", err)
	}
	for _, chain := range chains {
		if chain.Table != nil && chain.Table.Name == name {
			s.chains = append(s.chains, chain.Name)
		}
	}
	return nil
}

func (t *Table) readSets(s *state, name string) error {
	sets, err := t.reader.GetSets(inet(name))
	if err != nil {
		return fmt.Errorf("list sets: %w", err)
	}
	for _, set := range sets {
		if set.Anonymous {
			// It goes with its rule.
			continue
		}
		s.sets[set.Name] = set
		if set.Name != ruleset.Redirected4 && set.Name != ruleset.Redirected6 {
			continue
		}
		if s.counted[set.Name], err = t.reader.GetSetElements(set); err != nil {
			return fmt.Errorf("list elements of %s: %w", set.Name, err)
		}
	}
	return nil
}

func (t *Table) readCounters(s *state, name string) error {
	objects, err := t.reader.GetObjects(inet(name))
	if err != nil {
		return fmt.Errorf("list counters: %w", err)
	}
	for _, o := range objects {
		if counter, ok := o.(*nftables.CounterObj); ok {
			s.counters[counter.Name] = true
		}
	}
	return nil
}

// verify counts what the kernel has after a transaction.
func (t *Table) verify(want *ruleset.Table) error {
	for _, set := range want.Sets {
		if set.Keep == ruleset.KeepAll {
			continue
		}
		elements, err := t.reader.GetSetElements(&nftables.Set{Table: inet(want.Name), Name: set.Name})
		if err != nil {
			return fmt.Errorf("list elements of %s: %w", set.Name, err)
		}
		if have, wanted := len(elements), len(encode(set.Elements)); have != wanted {
			return fmt.Errorf("set %s has %d elements, want %d", set.Name, have, wanted)
		}
	}
	rules, err := listRules(t.cfg, nftables.TableFamilyINet, want.Name)
	if err != nil {
		return err
	}
	wanted := 0
	for _, chain := range want.Chains {
		wanted += len(chain.Rules)
	}
	if len(rules) != wanted {
		return fmt.Errorf("table has %d rules, want %d", len(rules), wanted)
	}
	return nil
}

// Observed is what the kernel tells about the table.
type Observed struct {
	// Redirected counts connections, by service id.
	Redirected map[string]helperapi.Counter
	// Refused counts packets by which services tried what they may not.
	Refused helperapi.Counter
	// Conflicts are ports of the last hour, sorted.
	Conflicts []helperapi.Conflict
	// Published are assigned ports that somebody else's rules have led elsewhere
	// within the last minutes, sorted.
	Published []helperapi.Conflict
	Heals     uint64
	LastHeal  time.Time
}

// Observe reads counters and conflicts. Before the first Apply all is zero. A
// table that is gone is put back first.
func (t *Table) Observe(ctx context.Context) (Observed, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	o := Observed{Redirected: map[string]helperapi.Counter{}, Heals: t.heals, LastHeal: t.lastHeal}
	if err := ctx.Err(); err != nil {
		return o, err
	}
	if t.want == nil {
		return o, nil
	}
	there, err := t.exists(t.want.Name)
	if err == nil && !there {
		err = t.heal()
		o.Heals, o.LastHeal = t.heals, t.lastHeal
	}
	if err != nil {
		return o, err
	}
	return o, errors.Join(t.observeRedirected(&o), t.observeRefused(&o),
		t.observeConflicts(&o.Conflicts, ruleset.Kept, func(p helperapi.Port) (helperapi.Conflict, bool) { return t.want.Conflict(p, false) }),
		t.observeConflicts(&o.Conflicts, ruleset.Taken, func(p helperapi.Port) (helperapi.Conflict, bool) { return t.want.Conflict(p, true) }),
		t.observeConflicts(&o.Published, ruleset.Published, t.want.PublishedConflict))
}

func (t *Table) elements(set string) ([]nftables.SetElement, error) {
	list, err := t.reader.GetSetElements(&nftables.Set{Table: inet(t.want.Name), Name: set})
	if err != nil {
		return nil, fmt.Errorf("read set %s: %w", set, err)
	}
	return list, nil
}

func (t *Table) observeRedirected(o *Observed) error {
	for _, id := range t.want.Services() {
		o.Redirected[id] = helperapi.Counter{}
	}
	for _, set := range []string{ruleset.Redirected4, ruleset.Redirected6} {
		elements, err := t.elements(set)
		if err != nil {
			return err
		}
		for _, e := range elements {
			addr, ok := netip.AddrFromSlice(e.Key)
			id := t.want.ServiceAt(addr)
			if !ok || id == "" || e.Counter == nil {
				continue
			}
			c := o.Redirected[id]
			o.Redirected[id] = helperapi.Counter{Packets: c.Packets + e.Counter.Packets, Bytes: c.Bytes + e.Counter.Bytes}
		}
	}
	return nil
}

func (t *Table) observeRefused(o *Observed) error {
	object, err := t.reader.GetObject(&nftables.CounterObj{Table: inet(t.want.Name), Name: ruleset.Refused})
	if err != nil {
		return fmt.Errorf("read counter %s: %w", ruleset.Refused, err)
	}
	if counter, ok := object.(*nftables.CounterObj); ok {
		o.Refused = helperapi.Counter{Packets: counter.Packets, Bytes: counter.Bytes}
	}
	return nil
}

// observeConflicts reads ports from a set and adds what describe says of them.
func (t *Table) observeConflicts(list *[]helperapi.Conflict, set string, describe func(helperapi.Port) (helperapi.Conflict, bool)) error {
	elements, err := t.elements(set)
	if err != nil {
		return err
	}
	for _, e := range elements {
		p, ok := portOf(e.Key)
		if !ok {
			continue
		}
		if c, ok := describe(p); ok {
			*list = append(*list, c)
		}
	}
	slices.SortFunc(*list, func(a, b helperapi.Conflict) int {
		return cmp.Or(cmp.Compare(a.Port.Number, b.Port.Number), cmp.Compare(a.Port.Protocol, b.Port.Protocol))
	})
	return nil
}

// portOf reads a key of protocol and port.
func portOf(key []byte) (helperapi.Port, bool) {
	if len(key) != 8 {
		return helperapi.Port{}, false
	}
	p := helperapi.Port{Number: binary.BigEndian.Uint16(key[4:])}
	switch key[0] {
	case unix.IPPROTO_TCP:
		p.Protocol = helperapi.TCP
	case unix.IPPROTO_UDP:
		p.Protocol = helperapi.UDP
	}
	return p, p.Protocol != ""
}

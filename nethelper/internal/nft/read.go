package nft

import (
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"

	"honeysens.org/dockersensor/nethelper/internal/ruleset"
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

func (t *Table) read(table *ruleset.Table) (*state, error) {
	s := &state{sets: map[string]*nftables.Set{}, counters: map[string]bool{}, counted: map[string][]nftables.SetElement{}}
	var err error
	if s.exists, err = t.exists(kernelTable(table)); err != nil || !s.exists {
		return s, err
	}
	return s, errors.Join(t.readChains(s, table), t.readSets(s, table), t.readCounters(s, table))
}

func (t *Table) exists(table *nftables.Table) (bool, error) {
	tables, err := t.reader.ListTablesOfFamily(table.Family)
	if err != nil {
		return false, fmt.Errorf("list tables: %w", err)
	}
	return slices.ContainsFunc(tables, func(one *nftables.Table) bool { return one.Name == table.Name }), nil
}

func (t *Table) readChains(s *state, table *ruleset.Table) error {
	chains, err := t.reader.ListChainsOfTableFamily(table.Family)
	if err != nil {
		return fmt.Errorf("list chains: %w", err)
	}
	for _, chain := range chains {
		if chain.Table != nil && chain.Table.Name == table.Name {
			s.chains = append(s.chains, chain.Name)
		}
	}
	return nil
}

func (t *Table) readSets(s *state, table *ruleset.Table) error {
	sets, err := t.reader.GetSets(kernelTable(table))
	if err != nil {
		return fmt.Errorf("list sets: %w", err)
	}
	for _, set := range sets {
		if set.Anonymous {
			// It goes with its rule.
			continue
		}
		s.sets[set.Name] = set
		if known := table.Set(set.Name); known == nil || known.Keep != ruleset.KeepCounted {
			continue
		}
		if s.counted[set.Name], err = t.reader.GetSetElements(set); err != nil {
			return fmt.Errorf("list elements of %s: %w", set.Name, err)
		}
	}
	return nil
}

func (t *Table) readCounters(s *state, table *ruleset.Table) error {
	objects, err := t.reader.GetObjects(kernelTable(table))
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
		elements, err := t.reader.GetSetElements(&nftables.Set{Table: kernelTable(want), Name: set.Name})
		if err != nil {
			return fmt.Errorf("list elements of %s: %w", set.Name, err)
		}
		if have, wanted := len(elements), len(encode(set.Elements)); have != wanted {
			return fmt.Errorf("set %s has %d elements, want %d", set.Name, have, wanted)
		}
	}
	rules, err := listRules(t.cfg, want.Family, want.Name)
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

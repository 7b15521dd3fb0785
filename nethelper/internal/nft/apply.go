package nft

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"honeysens.org/dockersensor/nethelper/internal/ruleset"
)

// elementsPerMessage is far below the 2047 at which a list is cut, and keeps
// the list below the 64 KiB of a netlink attribute.
const elementsPerMessage = 400

// Apply puts the wanted table in force, all or nothing: after an error what was
// in force before still is. Connections that exist are not touched.
func (t *Table) Apply(ctx context.Context, want *ruleset.Table) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	return t.apply(want)
}

// attempts is how often a table is looked at and written. Somebody else may remove
// it in between, which not every error of the library tells from others.
const attempts = 3

func (t *Table) apply(want *ruleset.Table) error {
	if t.want != nil && t.want.Name != want.Name {
		return fmt.Errorf("apply table %s: this sensor has table %s", want.Name, t.want.Name)
	}
	for attempt := 1; ; attempt++ {
		err := t.write(want)
		if err == nil || attempt == attempts {
			return err
		}
	}
}

// write brings what the kernel has to what is wanted.
func (t *Table) write(want *ruleset.Table) error {
	tables := want.All()
	have := make([]*state, len(tables))
	var made []*nftables.Table
	for i, table := range tables {
		var err error
		if have[i], err = t.read(table); err != nil {
			return errors.Join(fmt.Errorf("read table %s: %w", want.Name, err), t.rollBack(made))
		}
		if err := t.claim(table); err != nil {
			return errors.Join(err, t.rollBack(made))
		}
		if !have[i].exists {
			made = append(made, kernelTable(table))
		}
	}
	if err := t.replace(tables, have); err != nil {
		return errors.Join(fmt.Errorf("apply table %s: %w", want.Name, err), t.rollBack(made))
	}
	t.want = want
	return nil
}

// rollBack removes empty tables that claim has made.
func (t *Table) rollBack(made []*nftables.Table) error {
	if len(made) == 0 {
		return nil
	}
	for _, table := range made {
		t.writer.DelTable(table)
	}
	if err := t.flush(); err != nil {
		return fmt.Errorf("remove empty table %s: %w", made[0].Name, err)
	}
	return nil
}

// replace writes one transaction: rules and chains anew, sets anew or with
// their elements brought up to date.
func (t *Table) replace(want []*ruleset.Table, have []*state) error {
	tx := transaction{conn: t.writer}
	for i, table := range want {
		if err := tx.replace(table, have[i]); err != nil {
			return err
		}
	}
	err := t.flush()
	if err != nil && !errors.Is(err, unix.ENOBUFS) {
		return err
	}
	// An overflow of the buffer says nothing about the transaction; what the
	// kernel has now does.
	for _, table := range want {
		if bad := t.verify(table); bad != nil {
			return errors.Join(err, bad)
		}
	}
	return nil
}

// transaction queues messages on a connection.
type transaction struct {
	conn  *nftables.Conn
	table *nftables.Table
	// lastID numbers new sets. The library would take a number from a variable
	// that all connections of the process share.
	lastID uint32
}

func (tx *transaction) replace(want *ruleset.Table, have *state) error {
	tx.table = kernelTable(want)
	tx.removeRules(have)
	for _, name := range want.Counters {
		if !have.counters[name] {
			tx.conn.AddObj(&nftables.CounterObj{Table: tx.table, Name: name})
		}
	}
	if err := tx.sets(want.Sets, have); err != nil {
		return err
	}
	tx.chains(want.Chains)
	return nil
}

func (tx *transaction) removeRules(have *state) {
	if len(have.chains) == 0 {
		return
	}
	tx.conn.FlushTable(tx.table)
	for _, name := range have.chains {
		tx.conn.DelChain(&nftables.Chain{Name: name, Table: tx.table})
	}
}

func (tx *transaction) sets(want []*ruleset.Set, have *state) error {
	stays := map[string]bool{}
	for _, set := range want {
		stays[set.Name] = set.Keep != ruleset.KeepNothing && same(tx.set(set), have.sets[set.Name])
	}
	for name := range have.sets {
		if !stays[name] {
			tx.conn.DelSet(&nftables.Set{Name: name, Table: tx.table})
		}
	}
	for _, set := range want {
		var err error
		if stays[set.Name] {
			err = tx.update(set, have.counted[set.Name])
		} else {
			err = tx.create(set)
		}
		if err != nil {
			return fmt.Errorf("set %s: %w", set.Name, err)
		}
	}
	return nil
}

// set translates the definition of a set.
func (tx *transaction) set(s *ruleset.Set) *nftables.Set {
	set := &nftables.Set{
		Table: tx.table, Name: s.Name, Comment: s.Comment,
		KeyType: s.Key.Datatype(), KeyByteOrder: binaryutil.BigEndian,
		Interval: s.Interval, IsMap: s.IsMap(), Counter: s.Counter(),
		Dynamic: s.Keep == ruleset.KeepAll, HasTimeout: s.Timeout > 0, Timeout: s.Timeout, Size: s.Size,
	}
	if set.IsMap {
		set.DataType = s.Data.Datatype()
	}
	if set.KeyType.Name == nftables.TypeIFName.Name {
		// Names of interfaces are strings, which nft reads from the front.
		set.KeyByteOrder = binaryutil.NativeEndian
	}
	return set
}

// same tells whether the kernel has a set of that definition.
func same(want, have *nftables.Set) bool {
	return have != nil && want.KeyType.Name == have.KeyType.Name && want.IsMap == have.IsMap &&
		want.Dynamic == have.Dynamic && want.HasTimeout == have.HasTimeout && want.Timeout == have.Timeout &&
		want.Size == have.Size && want.Interval == have.Interval
}

func (tx *transaction) create(s *ruleset.Set) error {
	set := tx.set(s)
	tx.lastID++
	set.ID = tx.lastID
	if err := tx.conn.AddSet(set, nil); err != nil {
		return err
	}
	return tx.add(set, s.Elements)
}

func (tx *transaction) add(set *nftables.Set, elements []ruleset.Element) error {
	list := encode(elements)
	for len(list) > 0 {
		n := min(len(list), elementsPerMessage)
		if err := tx.conn.SetAddElements(set, list[:n]); err != nil {
			return err
		}
		list = list[n:]
	}
	return nil
}

// encode turns an interval into two elements: its first key, and the first key
// behind it, marked as an end.
func encode(elements []ruleset.Element) []nftables.SetElement {
	list := make([]nftables.SetElement, 0, len(elements))
	for _, e := range elements {
		list = append(list, nftables.SetElement{Key: e.Key.Data, Val: e.Data.Data, Comment: e.Comment})
		if e.End != nil {
			list = append(list, nftables.SetElement{Key: e.End, IntervalEnd: true})
		}
	}
	return list
}

// update leaves elements alone that are still wanted, so their counters go on.
// Of sets that packets write to it leaves all alone.
func (tx *transaction) update(s *ruleset.Set, have []nftables.SetElement) error {
	if s.Keep == ruleset.KeepAll {
		return nil
	}
	var gone []nftables.SetElement
	for _, h := range have {
		if !contains(s.Elements, h) {
			gone = append(gone, nftables.SetElement{Key: h.Key})
		}
	}
	set := tx.set(s)
	for len(gone) > 0 {
		n := min(len(gone), elementsPerMessage)
		if err := tx.conn.SetDeleteElements(set, gone[:n]); err != nil {
			return err
		}
		gone = gone[n:]
	}
	return tx.add(set, missing(s.Elements, have))
}

func contains(elements []ruleset.Element, h nftables.SetElement) bool {
	for _, e := range elements {
		if bytes.Equal(e.Key.Data, h.Key) && e.Comment == h.Comment {
			return true
		}
	}
	return false
}

func missing(elements []ruleset.Element, have []nftables.SetElement) []ruleset.Element {
	var list []ruleset.Element
	for _, e := range elements {
		there := false
		for _, h := range have {
			there = there || bytes.Equal(e.Key.Data, h.Key) && e.Comment == h.Comment
		}
		if !there {
			list = append(list, e)
		}
	}
	return list
}

// chains adds all chains before any rule, since rules jump to chains.
func (tx *transaction) chains(chains []ruleset.Chain) {
	policy := nftables.ChainPolicyAccept
	for _, c := range chains {
		chain := &nftables.Chain{Name: c.Name, Table: tx.table}
		if c.Base != nil {
			chain.Type, chain.Hooknum, chain.Policy = c.Base.Type, c.Base.Hook, &policy
			chain.Priority = nftables.ChainPriorityRef(nftables.ChainPriority(c.Base.Priority))
		}
		tx.conn.AddChain(chain)
	}
	for _, c := range chains {
		for _, r := range c.Rules {
			tx.rule(c.Name, r)
		}
	}
}

func (tx *transaction) rule(chain string, r ruleset.Rule) {
	tx.conn.AddRule(&nftables.Rule{
		Table: tx.table, Chain: &nftables.Chain{Name: chain, Table: tx.table},
		// The library may write into expressions, and a table can be applied twice.
		Exprs:    append([]expr.Any(nil), r.Exprs...),
		UserData: userdata.AppendString(nil, userdata.TypeComment, r.Comment),
	})
}

// Heartbeat lets redirection go on for another ruleset.Config.Heartbeat. A
// table that is gone is put back.
func (t *Table) Heartbeat(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if t.want == nil {
		return nil
	}
	set := t.want.Set(ruleset.Heartbeat)
	tx := transaction{conn: t.writer, table: kernelTable(t.want)}
	// Adding alone makes an element young again on new kernels only.
	tx.conn.FlushSet(tx.set(set))
	if err := tx.add(tx.set(set), set.Elements); err != nil {
		return fmt.Errorf("heartbeat: %w", err)
	}
	err := t.flush()
	if errors.Is(err, unix.ENOENT) {
		return t.heal()
	}
	if err != nil {
		return fmt.Errorf("heartbeat: %w", err)
	}
	return nil
}

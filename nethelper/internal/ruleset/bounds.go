package ruleset

import (
	"fmt"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Bounds are what each service may cost the host, in either family by itself.
// Zero values mean the defaults.
type Bounds struct {
	// Opened is how many new connections to a service pass each second.
	Opened uint32
	// Begun is how many connections a service may begin each second, to the
	// collector and where its egress policy lets it.
	Begun uint32
	// Tracked is how many connections conntrack keeps for a service at once. One
	// that a side has closed does not count.
	Tracked uint32
	// Packets is how many frames each second pass the port of a service, in
	// each direction.
	Packets uint32
}

// The defaults. A host with one core can do a multiple of each; a scanner that
// goes through all ports in a minute stays below.
const (
	DefaultOpened  = 5000
	DefaultBegun   = 200
	DefaultTracked = 4096
	DefaultPackets = 50000
)

// Share is what one service gets of conntrack's table of that size, 0 when it is
// not known: an eighth, and no more than the default.
func Share(table uint32) uint32 {
	if table == 0 {
		return DefaultTracked
	}
	return min(DefaultTracked, max(1, table/8))
}

func (b Bounds) withDefaults() Bounds {
	set := func(value *uint32, otherwise uint32) {
		if *value == 0 {
			*value = otherwise
		}
	}
	set(&b.Opened, DefaultOpened)
	set(&b.Begun, DefaultBegun)
	set(&b.Tracked, DefaultTracked)
	set(&b.Packets, DefaultPackets)
	return b
}

// maxBound keeps twice of a bound, which a burst may have, within 32 bits.
const maxBound = 1 << 30

func (c *Config) validateBounds() error {
	for _, bound := range []uint32{c.Bounds.Opened, c.Bounds.Begun, c.Bounds.Tracked, c.Bounds.Packets} {
		if bound > maxBound {
			return fmt.Errorf("bound of %d: want up to %d", bound, maxBound)
		}
	}
	return nil
}

// Lacks is what a kernel cannot do.
type Lacks struct {
	// Ports: it has no filter of bridges (CONFIG_NF_TABLES_BRIDGE).
	Ports bool
	// Tracked: it cannot count connections (CONFIG_NFT_CONNLIMIT, Linux 4.18).
	Tracked bool
}

// Notes says in sentences for the operator what the sensor does without.
func (l Lacks) Notes() []string {
	var notes []string
	if l.Ports {
		notes = append(notes, "the kernel cannot filter at the ports of a bridge (CONFIG_NF_TABLES_BRIDGE): a honeypot that somebody has taken over can take the place of another one, and its packets are not bounded")
	}
	if l.Tracked {
		notes = append(notes, "the kernel cannot count connections (CONFIG_NFT_CONNLIMIT): one honeypot can fill the table of connections of the host")
	}
	return notes
}

// over is the limit that matches what is above a rate. Twice the rate may come
// at once.
func over(rate uint32) stateful {
	return stateful{
		text: fmt.Sprintf("limit rate over %d/second burst %d packets", rate, 2*rate),
		expr: &expr.Limit{Type: expr.LimitTypePkts, Rate: uint64(rate), Unit: expr.LimitTimeSecond, Burst: 2 * rate, Over: true},
	}
}

// moreThan matches the first packet of a connection when there are that many.
func moreThan(connections uint32) stateful {
	return stateful{
		text: fmt.Sprintf("ct count over %d", connections),
		expr: &expr.Connlimit{Count: connections, Flags: expr.NFT_CONNLIMIT_F_INV},
	}
}

// stateful is an expression that remembers, with each element of a set.
type stateful struct {
	text string
	expr expr.Any
}

// each applies the expression to the element that the fields name, which it
// makes when it is not there. When the set is full the rule ends there.
func each(set *Set, what stateful, fields ...field) part {
	key := load(fields...)
	key.text = "update @" + set.Name + " { " + key.text + " " + what.text + " }"
	key.exprs = append(key.exprs, &expr.Dynset{
		SrcRegKey: firstRegister, SetName: set.Name, Operation: unix.NFT_DYNSET_OP_UPDATE, Exprs: []expr.Any{what.expr},
	})
	return key
}

// admitChain bounds what attackers open at a service. A connection that is
// dropped here is not in the table of conntrack: it enters that at the end of
// its way.
func (b *builder) admitChain() Chain {
	c := Chain{Name: "admit", Rules: []Rule{
		b.bounded("too many at once", each(b.opened4, over(b.Bounds.Opened), destination(false)), b.bounded4, destination(false)),
		b.bounded("too many at once", each(b.opened6, over(b.Bounds.Opened), destination(true)), b.bounded6, destination(true)),
	}}
	c.Rules = append(c.Rules, b.share(destination)...)
	c.Rules = append(c.Rules, rule("the rest", accept()))
	return c
}

// beginChain bounds what a service begins where it may.
func (b *builder) beginChain() Chain {
	c := Chain{Name: "begin", Rules: []Rule{
		rule("connections that exist", followsUp(), accept()),
		b.bounded("too many at once", each(b.begun4, over(b.Bounds.Begun), source(false)), b.bounded4, source(false)),
		b.bounded("too many at once", each(b.begun6, over(b.Bounds.Begun), source(true)), b.bounded6, source(true)),
	}}
	c.Rules = append(c.Rules, b.share(source)...)
	c.Rules = append(c.Rules, rule("the rest", accept()))
	return c
}

// share are the rules that leave the others their part of conntrack's table.
// Both directions count together.
func (b *builder) share(address func(v6 bool) field) []Rule {
	if b.Lacks.Tracked {
		return nil
	}
	const why = "its share of the table of connections"
	return []Rule{
		b.bounded(why, each(b.tracked4, moreThan(b.Bounds.Tracked), address(false)), b.bounded4, address(false)),
		b.bounded(why, each(b.tracked6, moreThan(b.Bounds.Tracked), address(true)), b.bounded6, address(true)),
	}
}

// bounded drops what is above a bound, and lets the element of the service or
// of its port count it.
func (b *builder) bounded(comment string, above part, counter *Set, key field) Rule {
	return rule(comment, above, in(counter, key), drop())
}

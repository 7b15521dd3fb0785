package ruleset

import (
	"time"

	"github.com/google/nftables/expr"
)

const (
	// triedTimeout is how long the host remembers where a service tried to go.
	triedTimeout = 10 * time.Minute
	// triedEach bounds how many places of a service are noted each minute, so
	// that one cannot leave the others without. Fewer than maxTried fit within
	// triedTimeout for the most services that there can be.
	triedEach = 6
	maxTried  = 65535
)

// refuseChain ends what a service tries and may not: counted for the service,
// and noted where it wanted to go.
func (b *builder) refuseChain() Chain {
	return Chain{Name: "refuse", Rules: []Rule{
		rule("the service's own count", in(b.refused4, source(false))),
		rule("the service's own count", in(b.refused6, source(true))),
		rule("where it wanted to go", each(b.noted4, someTimes(), source(false)), jump("note")),
		rule("where it wanted to go", each(b.noted6, someTimes(), source(true)), jump("note")),
		rule("all services together", count(refused), drop()),
	}}
}

// noteChain remembers who wanted to go where. Only TCP and UDP have a port.
func (b *builder) noteChain() Chain {
	const port, none = "to a port", "without ports, such as ICMP"
	return Chain{Name: "note", Rules: []Rule{
		rule(port, in(b.ported, protocol()), remember(b.tried4, source(false), destination(false), protocol(), destinationPort())),
		rule(port, in(b.ported, protocol()), remember(b.tried6, source(true), destination(true), protocol(), destinationPort())),
		rule(none, notIn(b.ported, protocol()), remember(b.tried4, source(false), destination(false), protocol(), noPort())),
		rule(none, notIn(b.ported, protocol()), remember(b.tried6, source(true), destination(true), protocol(), noPort())),
	}}
}

// noPort stands where others have one.
func noPort() field {
	return field{text: "0", bytes: 2, load: func(reg uint32) expr.Any { return &expr.Immediate{Register: reg, Data: make([]byte, 2)} }}
}

// someTimes matches a few packets each minute.
func someTimes() stateful {
	return stateful{
		text: "limit rate 6/minute burst 10 packets",
		expr: &expr.Limit{Type: expr.LimitTypePkts, Rate: triedEach, Unit: expr.LimitTimeMinute, Burst: 10},
	}
}

package collector

import (
	"net/netip"
	"sync"
	"time"
)

// MarkFor is how long events of a marked source are no attacks. Some honeypots
// report only when they give up on a connection.
const MarkFor = 15 * time.Minute

const (
	// maxMarks bounds the sources that are marked at a time.
	maxMarks = 4096
)

// marks are sources of the sensor's own tests.
type marks struct {
	mu sync.Mutex
	of map[netip.Addr]mark
	// all are marked until then: those of a manager before this one.
	all   func(netip.Addr) bool
	until time.Time
}

type mark struct {
	until time.Time
	// reported gets the first service that reports the source.
	reported chan string
}

// Mark announces a test: events with this source are answered as all others, and
// not kept. The channel gets the id of the service that reports it first. A
// source is to be one that no attacker can have or guess.
func (c *Collector) Mark(source netip.Addr) <-chan string {
	m := &c.marks
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.of == nil {
		m.of = map[netip.Addr]mark{}
	}
	for known, mark := range m.of {
		if now.After(mark.until) || len(m.of) >= maxMarks {
			delete(m.of, known)
		}
	}
	reported := make(chan string, 1)
	m.of[source] = mark{now.Add(MarkFor), reported}
	return reported
}

// MarkAll marks all addresses of a kind until then, for tests of a manager before
// this one: which of them they used is not known any more.
func (c *Collector) MarkAll(all func(netip.Addr) bool, until time.Time) {
	c.marks.mu.Lock()
	defer c.marks.mu.Unlock()
	c.marks.all, c.marks.until = all, until
}

// test tells whether an event comes of a test, and then who is to know.
func (m *marks) test(source, origin string) bool {
	addr, err := netip.ParseAddr(source)
	if err != nil {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	mark, ok := m.of[addr.Unmap()]
	if !ok || time.Now().After(mark.until) {
		return time.Now().Before(m.until) && m.all(addr.Unmap())
	}
	select {
	case mark.reported <- origin:
	default:
	}
	return true
}

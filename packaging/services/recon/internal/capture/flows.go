package capture

import (
	"net/netip"
	"time"
)

// flow is a UDP conversation as this host started it.
type flow struct {
	remote       netip.Addr
	local, other uint16
}

// flows remembers what this host sent, so that the answers are not taken for
// probes. It is bounded in time and in size; when it is full, the old ones go.
type flows struct {
	keep     time.Duration
	max      int
	until    map[flow]time.Time
	nextTidy time.Time
}

func newFlows() *flows {
	return &flows{keep: 5 * time.Minute, max: 16384, until: map[flow]time.Time{}}
}

func (f *flows) sent(now time.Time, p packet) {
	if len(f.until) >= f.max || now.After(f.nextTidy) {
		f.tidy(now)
	}
	f.until[flow{remote: p.dest, local: p.sport, other: p.dport}] = now.Add(f.keep)
}

func (f *flows) tidy(now time.Time) {
	f.nextTidy = now.Add(f.keep / 5)
	for key, until := range f.until {
		if now.After(until) {
			delete(f.until, key)
		}
	}
	if len(f.until) >= f.max {
		clear(f.until)
	}
}

func (f *flows) answers(now time.Time, p packet) bool {
	until, ok := f.until[flow{remote: p.source, local: p.dport, other: p.sport}]
	return ok && now.Before(until)
}

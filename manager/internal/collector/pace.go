package collector

import (
	"sync"
	"time"
)

const (
	// paceBurst is how long a honeypot may have been silent for, to report at once
	// what it could have reported meanwhile.
	paceBurst = 5 * time.Second
	// heldFor is how long a honeypot counts as held back after the last time.
	heldFor = 10 * time.Second
	// maxPaces bounds the honeypots whose pace is known.
	maxPaces = 1024
)

// paces hold back honeypots that report without an end: the server takes some
// hundred events a second of the whole sensor, and those of others would wait
// behind. Nothing is lost, since a honeypot waits for its reply.
type paces struct {
	mu sync.Mutex
	of map[string]*pace
}

// pace is that of one service (the generic cell rate algorithm, ITU-T I.371).
type pace struct {
	// next is when the event after the last one is due.
	next time.Time
	held time.Time
}

// delay notes an event and returns how long it has to wait.
func (p *paces) delay(origin string, rate int, now time.Time) time.Duration {
	if rate <= 0 {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	own := p.get(origin, now)
	if own.next.Before(now) {
		own.next = now
	}
	wait := own.next.Sub(now) - paceBurst
	own.next = own.next.Add(time.Second / time.Duration(rate))
	if wait <= 0 {
		return 0
	}
	own.held = now
	return wait
}

// refuse notes a connection over the limit. It counts as an event that has not to
// wait.
func (p *paces) refuse(origin string, rate int, now time.Time) {
	if rate <= 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	own := p.get(origin, now)
	if own.next.Before(now) {
		own.next = now
	}
	if own.next.Sub(now) >= paceBurst {
		own.held = now
		return
	}
	own.next = own.next.Add(time.Second / time.Duration(rate))
}

func (p *paces) get(origin string, now time.Time) *pace {
	if p.of == nil {
		p.of = map[string]*pace{}
	}
	own := p.of[origin]
	if own == nil {
		for other, known := range p.of {
			if len(p.of) >= maxPaces && known.next.Before(now) {
				delete(p.of, other)
			}
		}
		own = &pace{}
		p.of[origin] = own
	}
	return own
}

// Held tells whether a service reports more than it may, or connects more often,
// and is held back.
func (c *Collector) Held(service string) bool {
	c.paces.mu.Lock()
	defer c.paces.mu.Unlock()
	own := c.paces.of[service]
	return own != nil && !own.held.IsZero() && time.Since(own.held) < heldFor
}

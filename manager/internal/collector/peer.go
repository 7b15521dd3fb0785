package collector

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"go.uber.org/zap"
)

// minIdle is how long a connection must have been silent to make room for a
// new one of the same source.
const minIdle = time.Second

// source is an address with all of its connections.
type source struct {
	addr netip.Addr
	// origin is the service that has the address, or the address of a stranger.
	origin string
	peers  map[*peer]struct{}
	// decode is held while a message is decoded.
	decode sync.Mutex
}

// peer is one connection.
type peer struct {
	*source
	raw net.Conn
	// idleSince is zero while a message is on its way; Collector.mu guards it.
	idleSince time.Time
}

// admit counts a connection, or closes it and returns nil.
func (c *Collector) admit(raw net.Conn) *peer {
	p, refusal := c.enter(raw)
	if p == nil {
		c.counts.refused.Add(1)
		c.log.Warn("connection refused", zap.Stringer("from", raw.RemoteAddr()), zap.String("reason", refusal))
		_ = raw.Close()
	}
	return p
}

func (c *Collector) enter(raw net.Conn) (p *peer, refusal string) {
	remote, err := netip.ParseAddrPort(raw.RemoteAddr().String())
	if err != nil {
		return nil, "no address"
	}
	addr := remote.Addr().Unmap().WithZone("")
	origin, known := c.identify(addr)
	if !known {
		if !c.cfg.AnyPeer {
			return nil, "no service has this address"
		}
		origin = addr.String()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.sources[addr]
	if s == nil {
		s = &source{addr: addr, peers: map[*peer]struct{}{}}
	}
	if len(s.peers) >= c.cfg.MaxConnsPerSource && !c.evict(s) {
		c.paces.refuse(origin, c.cfg.Rate, time.Now())
		return nil, "too many connections of this address"
	}
	if c.conns >= c.cfg.MaxConns {
		return nil, "too many connections"
	}
	// The address of a service that was removed can go to another one.
	s.origin = origin
	p = &peer{source: s, raw: raw}
	c.sources[addr] = s
	s.peers[p] = struct{}{}
	c.conns++
	return p, ""
}

// evict ends the connection of a source that was idle for longest.
func (c *Collector) evict(s *source) bool {
	var oldest *peer
	for p := range s.peers {
		if !p.idleSince.IsZero() && (oldest == nil || p.idleSince.Before(oldest.idleSince)) {
			oldest = p
		}
	}
	if oldest == nil || time.Since(oldest.idleSince) < minIdle {
		return false
	}
	_ = oldest.raw.Close()
	c.remove(oldest)
	return true
}

// leave closes a connection and takes it out of the books.
func (c *Collector) leave(p *peer) {
	_ = p.raw.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(p)
}

// remove may come twice for a connection that was evicted.
func (c *Collector) remove(p *peer) {
	if _, there := p.peers[p]; !there {
		return
	}
	delete(p.peers, p)
	c.conns--
	if len(p.peers) == 0 {
		delete(c.sources, p.addr)
	}
}

// setIdle notes when a connection has begun to wait for a request.
func (c *Collector) setIdle(p *peer, since time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p.idleSince = since
}

// originOf is read under the lock, since a new connection can change it.
func (c *Collector) originOf(p *peer) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return p.origin
}

package tracker

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"honeysens.org/dockersensor/shared/event"
)

// MaxPayload is how many bytes of a payload are kept: base64 turns them into
// the longest text that the server stores uncut (255 characters).
const MaxPayload = 189

// Probe is one packet that is the first of something: a TCP segment that opens
// a connection, or pretends to, or a UDP datagram.
type Probe struct {
	Time   time.Time
	Source netip.Addr
	// Protocol is event.ProtocolTCP or event.ProtocolUDP.
	Protocol            int
	SourcePort, DstPort uint16
	// Flags are those of the TCP header.
	Flags uint8
	// Payload is cut to MaxPayload. For TCP it is the first that the attacker
	// sent on the connection that the probe opened.
	Payload []byte
}

// Config holds the limits. New sets those that are zero.
type Config struct {
	// Silence ends the collection of a source; 6 s, as the honeypots in the
	// field have it.
	Silence time.Duration
	// Longest ends it although the source is not silent; 60 s.
	Longest time.Duration
	// ScanAfter is the number of probes that make a scan; 25, as above.
	ScanAfter int
	// Ignore is how long a source is ignored after a scan; 60 s, as above.
	Ignore time.Duration
	// MaxSources bounds the sources that are remembered at one time; 4096.
	MaxSources int
}

func (cfg Config) withDefaults() Config {
	cfg.Silence = cmp.Or(cfg.Silence, 6*time.Second)
	cfg.Longest = cmp.Or(cfg.Longest, 60*time.Second)
	cfg.ScanAfter = cmp.Or(cfg.ScanAfter, 25)
	cfg.Ignore = cmp.Or(cfg.Ignore, 60*time.Second)
	cfg.MaxSources = cmp.Or(cfg.MaxSources, 4096)
	return cfg
}

// Tracker holds the sources of the last minute.
type Tracker struct {
	cfg     Config
	sources map[netip.Addr]*source
	refused uint64
}

// source is collected while ignoreUntil is zero, ignored afterwards.
type source struct {
	first, last time.Time
	ignoreUntil time.Time
	probes      []Probe
}

// New returns an empty tracker.
func New(cfg Config) *Tracker {
	return &Tracker{cfg: cfg.withDefaults(), sources: map[netip.Addr]*source{}}
}

// Refused counts probes of sources that did not fit.
func (t *Tracker) Refused() uint64 { return t.refused }

// Add takes a probe in. The event is that of a scan that the probe completed,
// or nil.
func (t *Tracker) Add(p Probe) *event.Event {
	p.Source = p.Source.Unmap().WithZone("")
	p.Payload = p.Payload[:min(len(p.Payload), MaxPayload)]
	s, ok := t.sources[p.Source]
	if ok && s.ignored(p.Time) {
		return nil
	}
	if !ok || !s.ignoreUntil.IsZero() {
		if s = t.fresh(p); s == nil {
			return nil
		}
	}
	s.last = p.Time
	if !s.merge(p) {
		s.probes = append(s.probes, p)
	}
	if len(s.probes) < t.cfg.ScanAfter {
		return nil
	}
	done := s.event(p.Source, event.SummaryScan)
	s.probes, s.ignoreUntil = nil, p.Time.Add(t.cfg.Ignore)
	return &done
}

// fresh makes room for the source of a probe, or returns nil.
func (t *Tracker) fresh(p Probe) *source {
	if _, known := t.sources[p.Source]; !known && len(t.sources) >= t.cfg.MaxSources {
		t.refused++
		return nil
	}
	s := &source{first: p.Time, last: p.Time}
	t.sources[p.Source] = s
	return s
}

// Expire returns the events of the sources that are done, oldest first, and
// forgets sources that are ignored no more.
func (t *Tracker) Expire(now time.Time) []event.Event {
	return t.collect(func(s *source) bool {
		if !s.ignoreUntil.IsZero() {
			return !s.ignored(now)
		}
		return now.Sub(s.last) >= t.cfg.Silence || now.Sub(s.first) >= t.cfg.Longest
	})
}

// Flush returns the events of all sources and forgets them.
func (t *Tracker) Flush() []event.Event {
	return t.collect(func(*source) bool { return true })
}

func (t *Tracker) collect(done func(*source) bool) []event.Event {
	var events []event.Event
	for addr, s := range t.sources {
		if !done(s) {
			continue
		}
		delete(t.sources, addr)
		if len(s.probes) > 0 {
			events = append(events, s.event(addr, event.SummarySingle))
		}
	}
	slices.SortFunc(events, func(a, b event.Event) int {
		return cmp.Or(cmp.Compare(a.Timestamp, b.Timestamp), cmp.Compare(a.Source, b.Source))
	})
	return events
}

func (s *source) ignored(now time.Time) bool {
	return now.Before(s.ignoreUntil)
}

// merge joins a TCP probe with one of the same connection, so that neither a
// retransmission nor the payload, which comes from another place than the
// segment that opened the connection, counts twice.
func (s *source) merge(p Probe) bool {
	if p.Protocol != event.ProtocolTCP {
		return false
	}
	for i := range s.probes {
		known := &s.probes[i]
		if known.Protocol != p.Protocol || known.SourcePort != p.SourcePort || known.DstPort != p.DstPort {
			continue
		}
		if len(known.Payload) == 0 {
			known.Payload = p.Payload
		}
		return true
	}
	return false
}

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
	// IgnoreLongest is how long it is ignored when it goes on without a silence: a
	// scan of all ports is one event; 15 min.
	IgnoreLongest time.Duration
	// MaxSources bounds the sources that are remembered at one time; 4096.
	MaxSources int
	// MaxProbes bounds the probes that are remembered of all of them; 16384.
	MaxProbes int
}

func (cfg Config) withDefaults() Config {
	cfg.Silence = cmp.Or(cfg.Silence, 6*time.Second)
	cfg.Longest = cmp.Or(cfg.Longest, 60*time.Second)
	cfg.ScanAfter = cmp.Or(cfg.ScanAfter, 25)
	cfg.Ignore = cmp.Or(cfg.Ignore, 60*time.Second)
	cfg.IgnoreLongest = cmp.Or(cfg.IgnoreLongest, 15*time.Minute)
	cfg.MaxSources = cmp.Or(cfg.MaxSources, 4096)
	cfg.MaxProbes = cmp.Or(cfg.MaxProbes, 16384)
	return cfg
}

// Tracker holds the sources of the last minute.
type Tracker struct {
	cfg     Config
	sources map[netip.Addr]*source
	// probes counts those of all sources.
	probes  int
	refused uint64
}

// source is collected while scanned is zero, ignored for a while afterwards.
type source struct {
	first, last time.Time
	scanned     time.Time
	probes      []Probe
}

// New returns an empty tracker.
func New(cfg Config) *Tracker {
	return &Tracker{cfg: cfg.withDefaults(), sources: map[netip.Addr]*source{}}
}

// Refused counts probes that did not fit.
func (t *Tracker) Refused() uint64 { return t.refused }

// Add takes a probe in. The event is that of a scan that the probe completed,
// or nil.
func (t *Tracker) Add(p Probe) *event.Event {
	p.Source = p.Source.Unmap().WithZone("")
	p.Payload = p.Payload[:min(len(p.Payload), MaxPayload)]
	s, ok := t.sources[p.Source]
	if ok && t.ignored(s, p.Time) {
		s.last = p.Time
		return nil
	}
	if !ok || !s.scanned.IsZero() {
		if s = t.fresh(p); s == nil {
			return nil
		}
	}
	s.last = p.Time
	if !s.merge(p) && !t.keep(s, p) {
		return nil
	}
	if len(s.probes) < t.cfg.ScanAfter {
		return nil
	}
	done := s.event(p.Source, event.SummaryScan)
	t.probes -= len(s.probes)
	s.probes, s.scanned = nil, p.Time
	return &done
}

// keep adds a probe, when there is room. The first of a source always has some.
func (t *Tracker) keep(s *source, p Probe) bool {
	if t.probes >= t.cfg.MaxProbes && len(s.probes) > 0 {
		t.refused++
		return false
	}
	s.probes = append(s.probes, p)
	t.probes++
	return true
}

// ignored tells whether a source is, for its scan: for some time, and longer when
// the scan goes on.
func (t *Tracker) ignored(s *source, now time.Time) bool {
	if s.scanned.IsZero() {
		return false
	}
	since := now.Sub(s.scanned)
	return since < t.cfg.Ignore || (now.Sub(s.last) < t.cfg.Silence && since < t.cfg.IgnoreLongest)
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
		if !s.scanned.IsZero() {
			return !t.ignored(s, now)
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
		t.probes -= len(s.probes)
		if len(s.probes) > 0 {
			events = append(events, s.event(addr, event.SummarySingle))
		}
	}
	slices.SortFunc(events, func(a, b event.Event) int {
		return cmp.Or(cmp.Compare(a.Timestamp, b.Timestamp), cmp.Compare(a.Source, b.Source))
	})
	return events
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

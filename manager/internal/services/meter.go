package services

import (
	"slices"
	"sync"
	"time"
)

// meters measure how fast counters grow.
type meters struct {
	mu sync.Mutex
	of map[string]meter
}

// meter is a counter at the begin of the span that is being measured, and the rate
// of the one before.
type meter struct {
	count int64
	// since is when whatever counts began.
	since, at time.Time
	rate      int64
}

// rate returns how fast a counter has grown, in units a second: over a span of
// guardEvery or more, since what is written in bursts comes to the disk in bursts.
// A counter that began anew has another time since when it counts. It is 0 when it
// is unknown.
func (m *meters) rate(id string, since time.Time, count int64, now time.Time) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.of == nil {
		m.of = map[string]meter{}
	}
	last, known := m.of[id]
	if !known || count == 0 || last.count == 0 || !last.since.Equal(since) {
		m.of[id] = meter{count: count, since: since, at: now}
		return 0
	}
	span := now.Sub(last.at)
	if span < guardEvery {
		return last.rate
	}
	rate := int64(float64(count-last.count) / span.Seconds())
	m.of[id] = meter{count, since, now, rate}
	return rate
}

// forget forgets those that are not there any more.
func (m *meters) forget(there []Container) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id := range m.of {
		if !slices.ContainsFunc(there, func(c Container) bool { return c.ID == id }) {
			delete(m.of, id)
		}
	}
}

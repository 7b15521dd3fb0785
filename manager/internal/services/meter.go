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
	at    time.Time
	rate  int64
}

// rate returns how fast a counter has grown, in units a second: over a span of
// guardEvery or more, since what is written in bursts comes to the disk in bursts.
func (m *meters) rate(id string, count int64, now time.Time) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.of == nil {
		m.of = map[string]meter{}
	}
	last, known := m.of[id]
	span := now.Sub(last.at)
	switch {
	// It was unknown for a while, or a power cut took the newest away.
	case !known || last.count == 0 || count < last.count:
		m.of[id] = meter{count: count, at: now}
		return 0
	case span < guardEvery:
		return last.rate
	}
	rate := int64(float64(count-last.count) / span.Seconds())
	m.of[id] = meter{count, now, rate}
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

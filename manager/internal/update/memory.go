package update

import (
	"path/filepath"
	"time"
)

// maxRefused bounds what is remembered of firmware that failed; the oldest go
// first.
const maxRefused = 32

// Refusal is a firmware that is not tried again by itself.
type Refusal struct {
	Revision string `json:"revision"`
	URI      string `json:"uri"`
	// Digest is "" when it failed before it was known.
	Digest string    `json:"digest,omitempty"`
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
}

// Memory is what outlives updates.
type Memory struct {
	// Hold: the operator wants no updates.
	Hold    bool      `json:"hold"`
	Refused []Refusal `json:"refused"`
	// Last is the offer that was judged last: while the server repeats it, it is
	// known.
	Last Offer `json:"last,omitzero"`
	// StartedOver is the digest of the firmware whose update started over last: it
	// does so once.
	StartedOver string `json:"started_over,omitempty"`
}

// Memory returns what is remembered.
func (j *Journal) Memory() (Memory, error) {
	var m Memory
	err := readJSON(filepath.Join(j.dir, memoryFile), &m)
	return m, wrap("read memory of updates", err)
}

// Remember replaces it.
func (j *Journal) Remember(m Memory) error {
	if over := len(m.Refused) - maxRefused; over > 0 {
		m.Refused = m.Refused[over:]
	}
	return wrap("write memory of updates", writeJSON(filepath.Join(j.dir, memoryFile), m))
}

// refused returns why an offer that the server repeats is not tried, or nil. One
// that comes after another offer is fetched again: only its digest tells
// whether it is the same.
func (m Memory) refused(o Offer) *Refusal {
	if m.Last != o {
		return nil
	}
	for n := range m.Refused {
		if m.Refused[n].Revision == o.Revision && m.Refused[n].URI == o.URI {
			return &m.Refused[n]
		}
	}
	return nil
}

// digest returns why an archive is not tried, or nil.
func (m Memory) digest(digest string) *Refusal {
	for n := range m.Refused {
		if m.Refused[n].Digest == digest && digest != "" {
			return &m.Refused[n]
		}
	}
	return nil
}

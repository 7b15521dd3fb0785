package network

import (
	"fmt"
	"strings"
	"time"

	"honeysens.org/dockersensor/shared/helperapi"
)

const (
	// tellEvery is the least time between two reports about one service.
	tellEvery = 10 * time.Minute
	// tellAtOnce is how many reports there are within that time, whatever number
	// of services there is. The others come later.
	tellAtOnce = 20
)

// Attempts reports what services tried and may not, so that the operator learns
// of a honeypot that somebody has taken over. What a helper has counted before
// this manager came is told once more: a report twice is better than none. It is
// not for concurrent use.
type Attempts struct {
	told map[string]attempts
	// began is when the first of the last reports was made, recent how many
	// there were since.
	began  time.Time
	recent int
}

// attempts is what was told last of a service.
type attempts struct {
	when            time.Time
	refused, forged uint64
}

// NewAttempts returns one that has told nothing yet.
func NewAttempts() *Attempts { return &Attempts{told: map[string]attempts{}} }

// Report looks at an observed state and tells what is new and due, as a summary
// and details. What could not be told stays due.
func (a *Attempts) Report(now time.Time, seen helperapi.Observed, tell func(summary, details string) error) error {
	there := map[string]bool{}
	for _, service := range seen.Services {
		there[service.ID] = true
		if !a.due(now, service) {
			continue
		}
		summary, details := a.describe(service)
		if err := tell(summary, details); err != nil {
			return fmt.Errorf("report attempts of service %s: %w", service.ID, err)
		}
		a.told[service.ID] = attempts{when: now, refused: service.Refused.Packets, forged: service.Forged.Packets}
		a.recent++
	}
	for id, last := range a.told {
		if !there[id] && now.Sub(last.when) >= tellEvery {
			delete(a.told, id)
		}
	}
	return nil
}

// due tells whether there is something new that may be told now.
func (a *Attempts) due(now time.Time, service helperapi.ServiceObserved) bool {
	last, known := a.told[service.ID]
	if service.Refused.Packets < last.refused || service.Forged.Packets < last.forged {
		// Counted anew, by new rules.
		last.refused, last.forged = 0, 0
		a.told[service.ID] = last
	}
	if service.Refused.Packets == last.refused && service.Forged.Packets == last.forged {
		return false
	}
	if known && now.Sub(last.when) < tellEvery {
		return false
	}
	if now.Sub(a.began) >= tellEvery {
		a.began, a.recent = now, 0
	}
	return a.recent < tellAtOnce
}

// describe says how often it was since the last report, and where the service
// wanted to go.
func (a *Attempts) describe(service helperapi.ServiceObserved) (summary, details string) {
	last := a.told[service.ID]
	refused, forged := service.Refused.Packets-last.refused, service.Forged.Packets-last.forged
	var parts, texts []string
	if refused > 0 {
		parts = append(parts, fmt.Sprintf("%d packets to where it may not go", refused))
		places := make([]string, len(service.Tried))
		for i, place := range service.Tried {
			places[i] = place.String()
		}
		if len(places) > 0 {
			texts = append(texts, "it tried "+strings.Join(places, ", "))
		}
	}
	if forged > 0 {
		parts = append(parts, fmt.Sprintf("%d frames in somebody else's name", forged))
		texts = append(texts, "frames with an address of somebody else, or of a protocol that no service needs, were dropped where it is connected")
	}
	return fmt.Sprintf("Honeypot %s was stopped: %s", service.ID, strings.Join(parts, ", ")), strings.Join(texts, "; ")
}

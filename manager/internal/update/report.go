package update

import (
	"path/filepath"
	"slices"
)

const reportSuffix = ".json"

// Report is what one of the two sensors says of itself while the conductor has
// the say. It is of this start of its manager.
type Report struct {
	// Serving: it holds spool and network. Idle: it holds neither.
	Serving bool `json:"serving"`
	Idle    bool `json:"idle"`
	// Prepared: it could take over at once.
	Prepared bool `json:"prepared"`
	// Proof is what works.
	Proof Proof `json:"proof"`
	// Problem is what it waits for, for a person.
	Problem string `json:"problem,omitempty"`
}

// Proof is what works in a sensor that serves.
type Proof struct {
	// Poll: the server has taken a poll since it serves; Event: an event.
	Poll     bool     `json:"poll"`
	Event    bool     `json:"event"`
	Network  bool     `json:"network"`
	Services []string `json:"services"`
	// Tested are the services that have passed the self-test.
	Tested []string `json:"tested,omitempty"`
}

// Missing says what does not work that worked before, or "".
func (p Proof) Missing(before Worked) string {
	if !p.Poll {
		return "the server has not taken a poll"
	}
	if before.Network && !p.Network {
		return "the network is not as wanted"
	}
	for _, id := range before.Services {
		if !slices.Contains(p.Services, id) {
			return "service " + id + " does not answer"
		}
	}
	for _, id := range before.Tested {
		if !slices.Contains(p.Tested, id) {
			return "service " + id + " does not pass the self-test"
		}
	}
	if before.Events && !p.Event {
		return "the server has not taken an event"
	}
	return ""
}

// Report writes what a sensor says of itself.
func (j *Journal) Report(side Side, r Report) error {
	return wrap("report to the conductor", writeJSON(filepath.Join(j.dir, string(side)+reportSuffix), r))
}

// Heard returns what a sensor said last; zero when it has said nothing.
func (j *Journal) Heard(side Side) (Report, error) {
	var r Report
	err := readJSON(filepath.Join(j.dir, string(side)+reportSuffix), &r)
	return r, wrap("read report of the "+string(side)+" sensor", err)
}

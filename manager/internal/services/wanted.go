package services

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"honeysens.org/dockersensor/shared/helperapi"
)

// Wanted is a service that the server has assigned to this sensor.
type Wanted struct {
	// ID is the service's id at the server.
	ID    string `json:"id"`
	Label string `json:"label"`
	// Image is "repo:tag" in the server's registry.
	Image string `json:"image"`
	// Ports leads ports of the sensor's interface to ports of the honeypot.
	Ports []helperapi.Assignment `json:"ports,omitempty"`
	// CatchAll gives it all that nobody else has.
	CatchAll bool `json:"catch_all,omitempty"`
	// Raw puts it into the sensor's own network namespace. Ports and catch-all
	// then mean nothing: it sees the interface itself.
	Raw bool `json:"raw,omitempty"`
	// Error says why the service cannot run, such as a port assignment that
	// cannot be read, or is "".
	Error string `json:"error,omitempty"`
}

// maxText bounds labels and reasons, in characters.
const maxText = 200

// validID is the helper's rule. It keeps "s<id>" a valid container name, and
// ids apart from what is appended to them.
var validID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// plan is a wanted service after it was checked against the others.
type plan struct {
	Wanted
	// conflict says what the service cannot have, although it runs.
	conflict string
}

// settle checks the wanted services, sorts them, and decides who has what two of
// them want: the one with the lower id. The helper would refuse them all.
func settle(wanted []Wanted) []plan {
	sorted := slices.Clone(wanted)
	slices.SortStableFunc(sorted, func(a, b Wanted) int { return compareIDs(a.ID, b.ID) })
	sorted = slices.CompactFunc(sorted, func(a, b Wanted) bool { return a.ID == b.ID })
	plans := make([]plan, 0, len(sorted))
	s := settler{ports: map[helperapi.Port]string{}}
	for _, w := range sorted {
		plans = append(plans, s.settle(w))
	}
	return plans
}

// settler remembers what is given away.
type settler struct {
	ports    map[helperapi.Port]string
	catchAll string
	count    int
}

func (s *settler) settle(w Wanted) plan {
	w.Label = clean(w.Label)
	w.Error = clean(w.Error)
	if w.Error == "" {
		w.Error = s.refuse(w)
	}
	p := plan{Wanted: w}
	if w.Error == "" {
		s.count++
	}
	if w.Error != "" || w.Raw {
		p.Ports, p.CatchAll = nil, false
		return p
	}
	var conflicts []string
	p.Ports = nil
	for _, a := range w.Ports {
		if problem := s.take(w.ID, a); problem != "" {
			conflicts = append(conflicts, problem)
			continue
		}
		p.Ports = append(p.Ports, a)
	}
	if w.CatchAll && s.catchAll != "" {
		p.CatchAll = false
		conflicts = append(conflicts, "service "+s.catchAll+" is the catch-all already")
	}
	if p.CatchAll {
		s.catchAll = w.ID
	}
	p.conflict = clean(strings.Join(conflicts, "; "))
	return p
}

// refuse says why the service cannot run, or "".
func (s *settler) refuse(w Wanted) string {
	switch {
	case !validID.MatchString(w.ID):
		return fmt.Sprintf("service id %.70q: want 1 to 64 of a-z, A-Z, 0-9, _ and -", w.ID)
	case w.Image == "":
		return "the server names no image for it"
	case s.count >= helperapi.MaxServices:
		return fmt.Sprintf("more than %d services", helperapi.MaxServices)
	}
	return ""
}

// take gives the port to the service, or says why not.
func (s *settler) take(id string, a helperapi.Assignment) string {
	valid := (a.Port.Protocol == helperapi.TCP || a.Port.Protocol == helperapi.UDP) && a.Port.Number != 0 && a.To != 0
	other, taken := s.ports[a.Port]
	switch {
	case !valid:
		return fmt.Sprintf("port %.20q to %d cannot be assigned", a.Port, a.To)
	case taken:
		return fmt.Sprintf("port %s is assigned to service %s already", a.Port, other)
	case len(s.ports) >= helperapi.MaxPorts:
		return fmt.Sprintf("port %s is one too many: at most %d", a.Port, helperapi.MaxPorts)
	}
	s.ports[a.Port] = id
	return ""
}

// compareIDs sorts numbers by their value.
func compareIDs(a, b string) int {
	if numeric(a) && numeric(b) {
		a, b := strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
		if order := cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b)); order != 0 {
			return order
		}
	}
	return cmp.Compare(a, b)
}

func numeric(text string) bool {
	return text != "" && !strings.ContainsFunc(text, func(r rune) bool { return r < '0' || r > '9' })
}

// clean makes a text fit for a terminal and a log: one line, printable, bounded.
func clean(text string) string {
	count := 0
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if count++; count > maxText {
			return -1
		}
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text))
}

package hsapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"honeysens.org/dockersensor/shared/helperapi"
)

// Service is a honeypot that the server assigns.
type Service struct {
	ID    string
	Label string
	// Image is its repository and tag in the server's registry.
	Image string
	// Raw services share the sensor's network; ports and catch-all mean
	// nothing to them.
	Raw      bool
	CatchAll bool
	// Ports are ordered by the port that attackers see.
	Ports []helperapi.Assignment
	// Problem says why the service cannot run, and is "" when it can.
	Problem string
}

const pathPart = `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`

var (
	serviceID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
	// imageName is a repository and a tag as registries allow them.
	imageName = regexp.MustCompile(`^` + pathPart + `(/` + pathPart + `)*:[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)
)

// decodeServices reads the assigned services. A wrong one is marked, or left
// out when it cannot even be called by its id, and does not disturb the others.
func decodeServices(data json.RawMessage, arch string) (services map[string]Service, problems []string, err error) {
	fields, err := object(data)
	if err != nil {
		return nil, nil, err
	}
	if len(fields) > helperapi.MaxServices {
		return nil, nil, fmt.Errorf("%d of them: at most %d", len(fields), helperapi.MaxServices)
	}
	services = map[string]Service{}
	for id, data := range fields {
		if !serviceID.MatchString(id) {
			problems = append(problems, fmt.Sprintf("service %.70q: want an id of 1 to 64 of a-z, A-Z, 0-9, _ and -", id))
			continue
		}
		s, err := decodeService(data, serverArch(arch))
		if s.ID = id; err != nil {
			s.Problem = err.Error()
		}
		services[id] = s
	}
	settleConflicts(services)
	return services, problems, nil
}

// serverArch is the server's word for an architecture of Go.
func serverArch(arch string) string {
	switch arch {
	case "":
		return serverArch(runtime.GOARCH)
	case "arm":
		return "armhf"
	}
	return arch
}

func decodeService(data json.RawMessage, arch string) (Service, error) {
	var s Service
	revisions, err := object(data)
	if err != nil {
		return s, err
	}
	mine, ok := revisions[arch]
	if !ok {
		return s, otherArch(revisions, arch)
	}
	fields, err := object(mine)
	if err != nil {
		return s, err
	}
	label, labelErr := scalarOf(fields, "label")
	image, imageErr := scalarOf(fields, "uri")
	s.Label = cleanLabel(label)
	var rawErr, catchErr, portsErr error
	s.Raw, rawErr = boolOf(fields, "rawNetworkAccess")
	s.CatchAll, catchErr = boolOf(fields, "catchAll")
	s.Ports, portsErr = decodePorts(fields["portAssignment"])
	if imageErr == nil && (len(image) > 255 || !imageName.MatchString(image)) {
		imageErr = fmt.Errorf("uri: %.100q: want an image as repository:tag", image)
	}
	if imageErr == nil {
		s.Image = image
	}
	return s, errors.Join(labelErr, imageErr, rawErr, catchErr, portsErr)
}

// otherArch says which architectures there are instead.
func otherArch(revisions map[string]json.RawMessage, arch string) error {
	if len(revisions) == 0 {
		return errors.New("the server has no revision of this service: assign another one, or upload it")
	}
	have := slices.Sorted(maps.Keys(revisions))
	return fmt.Errorf("the server has this service for %.100q only, and this sensor is %s", strings.Join(have, ", "), arch)
}

// cleanLabel makes a label safe to show.
func cleanLabel(label string) string {
	label = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, label)
	if runes := []rune(label); len(runes) > 255 {
		label = string(runes[:255])
	}
	return label
}

func printable(text string, most int) bool {
	return utf8.RuneCountInString(text) <= most && !strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) })
}

// settleConflicts marks services that want what another one has: the one with
// the lower id keeps it, so that the same services run after every poll.
func settleConflicts(services map[string]Service) {
	taken := map[helperapi.Port]string{}
	catchAll, total := "", 0
	for _, id := range slices.SortedFunc(maps.Keys(services), compareIDs) {
		s := services[id]
		if s.Problem != "" || s.Raw {
			continue
		}
		s.Problem = conflict(s, taken, catchAll)
		if total += len(s.Ports); total > helperapi.MaxPorts {
			s.Problem = fmt.Sprintf("more than %d port assignments in all", helperapi.MaxPorts)
		}
		services[id] = s
		if s.Problem != "" {
			continue
		}
		if s.CatchAll {
			catchAll = id
		}
		for _, a := range s.Ports {
			taken[a.Port] = id
		}
	}
}

func conflict(s Service, taken map[helperapi.Port]string, catchAll string) string {
	if s.CatchAll && catchAll != "" {
		return fmt.Sprintf("service %s is the catch-all already: assign one only", catchAll)
	}
	for _, a := range s.Ports {
		if other, ok := taken[a.Port]; ok {
			return fmt.Sprintf("port %s is assigned to service %s already: change one of them at the server", a.Port, other)
		}
	}
	return ""
}

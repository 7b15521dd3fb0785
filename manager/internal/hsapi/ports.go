package hsapi

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"honeysens.org/dockersensor/shared/helperapi"
)

// maxAssignment bounds the text of a port assignment.
const maxAssignment = 64 << 10

// decodePorts reads a port assignment: JSON text that leads ports of the
// container to ports that attackers see, as in {"2222/tcp": 22}. A port may
// lead from several, given as a list, and stands for TCP without a protocol.
// Nobody has checked the text before: people type it at the server.
func decodePorts(data json.RawMessage) ([]helperapi.Assignment, error) {
	if data == nil {
		return nil, nil
	}
	if trimmed := bytes.TrimSpace(data); len(trimmed) == 0 || !strings.ContainsRune("{[", rune(trimmed[0])) {
		text, err := scalar(data)
		if err != nil {
			return nil, fmt.Errorf("port assignment: %w", err)
		}
		if text == nil || strings.TrimSpace(*text) == "" {
			return nil, nil
		}
		data = json.RawMessage(*text)
	}
	ports, err := parsePorts(data)
	if err != nil {
		return nil, fmt.Errorf(`port assignment %s: %w; correct it at the server, as in {"2222/tcp": 22}`, snippet(data), err)
	}
	return ports, nil
}

func parsePorts(data []byte) ([]helperapi.Assignment, error) {
	if len(data) > maxAssignment {
		return nil, fmt.Errorf("more than %d bytes", maxAssignment)
	}
	if err := checkJSON(data); err != nil {
		return nil, err
	}
	fields, err := object(data)
	if err != nil {
		return nil, errors.New("not a JSON object")
	}
	var ports []helperapi.Assignment
	seen := map[helperapi.Port]bool{}
	for inner, outer := range fields {
		to, protocol, err := containerPort(inner)
		if err != nil {
			return nil, err
		}
		numbers, err := outerPorts(outer)
		if err != nil {
			return nil, err
		}
		for _, number := range numbers {
			port := helperapi.Port{Protocol: protocol, Number: number}
			if seen[port] {
				return nil, fmt.Errorf("port %s leads to two ports", port)
			}
			seen[port] = true
			ports = append(ports, helperapi.Assignment{Port: port, To: to})
		}
	}
	slices.SortFunc(ports, func(a, b helperapi.Assignment) int {
		return cmp.Or(cmp.Compare(a.Port.Protocol, b.Port.Protocol), cmp.Compare(a.Port.Number, b.Port.Number))
	})
	return ports, nil
}

// containerPort reads "2222/tcp".
func containerPort(text string) (uint16, helperapi.Protocol, error) {
	number, protocol, found := strings.Cut(text, "/")
	if !found {
		protocol = string(helperapi.TCP)
	}
	port, err := strconv.ParseUint(number, 10, 16)
	if err != nil || port == 0 {
		return 0, "", fmt.Errorf("%.40q is not a port", text)
	}
	switch p := helperapi.Protocol(strings.ToLower(protocol)); p {
	case helperapi.TCP, helperapi.UDP:
		return uint16(port), p, nil
	}
	return 0, "", fmt.Errorf("%.40q: the protocol is neither tcp nor udp", text)
}

// outerPorts reads one port, or a list of them.
func outerPorts(data json.RawMessage) ([]uint16, error) {
	list := []json.RawMessage{data}
	if bytes.HasPrefix(bytes.TrimSpace(data), []byte("[")) {
		if err := json.Unmarshal(data, &list); err != nil {
			return nil, fmt.Errorf("%s is not a list of ports", snippet(data))
		}
	}
	ports := make([]uint16, 0, len(list))
	for _, item := range list {
		text, err := scalar(item)
		if err != nil || text == nil {
			return nil, fmt.Errorf("%s is not a port", snippet(item))
		}
		port, err := strconv.ParseUint(*text, 10, 16)
		if err != nil || port == 0 {
			return nil, fmt.Errorf("%s is not a port", snippet(item))
		}
		ports = append(ports, uint16(port))
	}
	return ports, nil
}

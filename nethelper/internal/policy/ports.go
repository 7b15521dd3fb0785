package policy

import (
	"fmt"
	"strconv"
	"strings"

	"honeysens.org/dockersensor/shared/helperapi"
)

// ParsePorts reads ports as PROTECTED_PORTS has them: "22/tcp,161/udp". A bare
// number means both protocols.
func ParsePorts(text string) ([]helperapi.Port, error) {
	var ports []helperapi.Port
	for field := range strings.SplitSeq(text, ",") {
		field = strings.TrimSpace(field)
		if field == "" {
			continue
		}
		digits, protocol, named := strings.Cut(field, "/")
		number, err := strconv.ParseUint(digits, 10, 16)
		if err != nil || number == 0 {
			return nil, fmt.Errorf("protected port %.20q: want a number from 1 to 65535, alone or with /tcp or /udp", field)
		}
		protocols := []helperapi.Protocol{helperapi.TCP, helperapi.UDP}
		if named {
			protocols = []helperapi.Protocol{helperapi.Protocol(strings.ToLower(protocol))}
		}
		for _, p := range protocols {
			if p != helperapi.TCP && p != helperapi.UDP {
				return nil, fmt.Errorf("protected port %.20q: want tcp or udp after the slash", field)
			}
			ports = append(ports, helperapi.Port{Protocol: p, Number: uint16(number)})
		}
	}
	return ports, nil
}

// ParseHostPorts reads HOST_PORTS. Deployments older than the variable do not
// set it: then assigned ports win over listeners on the wildcard address.
func ParseHostPorts(text string) (helperapi.HostPorts, error) {
	switch value := helperapi.HostPorts(strings.ToLower(strings.TrimSpace(text))); value {
	case "":
		return helperapi.HostPortsAssigned, nil
	case helperapi.HostPortsProtect, helperapi.HostPortsAssigned:
		return value, nil
	}
	return "", fmt.Errorf("host ports %.20q: want protect or assigned", text)
}

// ParseEgress reads EGRESS; nothing means deny.
func ParseEgress(text string) (helperapi.Egress, error) {
	switch value := helperapi.Egress(strings.ToLower(strings.TrimSpace(text))); value {
	case "":
		return helperapi.EgressDeny, nil
	case helperapi.EgressDeny, helperapi.EgressInternet, helperapi.EgressAll:
		return value, nil
	}
	return "", fmt.Errorf("egress %.20q: want deny, internet or all", text)
}

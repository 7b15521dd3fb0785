package helperapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/netip"
)

// ProbeText is what a probe says to a honeypot.
const ProbeText = "HoneySens self-test\r\n"

// ProbeNetwork is where probes come from: addresses for measurements of network
// devices, which no attacker can have (RFC 2544, appendix C.2.2).
func ProbeNetwork() netip.Prefix { return netip.MustParsePrefix("198.18.0.0/15") }

// ProbeNetworkV6 is the same for IPv6 (RFC 5180, section 8).
func ProbeNetworkV6() netip.Prefix { return netip.MustParsePrefix("2001:2::/48") }

// IsProbe tells whether probes come from an address.
func IsProbe(addr netip.Addr) bool {
	return ProbeNetwork().Contains(addr) || ProbeNetworkV6().Contains(addr)
}

// Probe asks for one connection that arrives at the sensor's interface as that
// of an attacker does.
type Probe struct {
	// Source is an address of ProbeNetwork or ProbeNetworkV6: the honeypot's event
	// will name it.
	Source netip.Addr `json:"source"`
	// Port is the one of the interface that is connected to.
	Port Port `json:"port"`
}

// ProbeOutcome is what came of a probe.
type ProbeOutcome string

// The outcomes. Nobody need answer to UDP.
const (
	ProbeAnswered ProbeOutcome = "answered"
	ProbeRefused  ProbeOutcome = "refused"
	ProbeSilent   ProbeOutcome = "silent"
)

// ProbeResult answers POST /v1/probe.
type ProbeResult struct {
	// Target is the interface's address that was connected to.
	Target  netip.Addr   `json:"target"`
	Outcome ProbeOutcome `json:"outcome"`
	// Said is how many bytes the honeypot said.
	Said int `json:"said"`
}

// DecodeProbe reads a Probe strictly. Its errors are of KindInvalid.
func DecodeProbe(body []byte) (Probe, error) {
	var p Probe
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&p); err != nil {
		return Probe{}, invalid("decode probe: %v", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Probe{}, invalid("data after the probe")
	}
	if !IsProbe(p.Source) {
		return Probe{}, invalid("probe from %v: want an address of %v or %v", p.Source, ProbeNetwork(), ProbeNetworkV6())
	}
	return p, p.Port.validate()
}

package event

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
)

// Limits of what is decoded at all. Events of the honeypots in the field have a
// depth of five and some hundred values.
const (
	maxDepth  = 16
	maxValues = 50_000
)

// Decode reads an event as honeypots send them and brings it into the limits of
// the server. It repairs what has one meaning only: numbers that are written as
// text or with a fraction of zero, missing or null lists and times, the key
// "data:" of cowrie's plug-in. An entry of a list that nobody can read is left
// out, and a detail says so. An error is for the honeypot's author to read.
func Decode(raw []byte, received time.Time) (Event, error) {
	if err := checkShape(raw); err != nil {
		return Event{}, err
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var fields map[string]any
	if err := dec.Decode(&fields); err != nil {
		return Event{}, fmt.Errorf("not a JSON object: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Event{}, errors.New("more than one JSON value")
	}
	if fields == nil {
		return Event{}, errors.New("not a JSON object: null")
	}
	e, err := fromFields(fields, received)
	if err != nil {
		return Event{}, err
	}
	e.Clean(received)
	return e, nil
}

// checkShape bounds what decoding can allocate, before it does.
func checkShape(raw []byte) error {
	depth, values, quoted := 0, 0, false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{', c == '[':
			depth++
			values++
		case c == '}', c == ']':
			depth--
		case c == ',':
			values++
		}
		if depth > maxDepth {
			return fmt.Errorf("nested deeper than %d levels", maxDepth)
		}
		if values > maxValues {
			return fmt.Errorf("more than %d values", maxValues)
		}
	}
	return nil
}

func fromFields(fields map[string]any, received time.Time) (Event, error) {
	service, ok := integer(fields["service"])
	if !ok || service < ServiceRecon || service > ServiceDionaea {
		return Event{}, fmt.Errorf("service: want %d, %d or %d", ServiceRecon, ServiceGeneric, ServiceDionaea)
	}
	source, ok := fields["source"].(string)
	if !ok {
		return Event{}, errors.New("source: want the attacker's address as text")
	}
	summary, ok := text(fields["summary"])
	if !ok && fields["summary"] != nil {
		return Event{}, errors.New("summary: want text")
	}
	e := Event{
		Timestamp: seconds(fields["timestamp"], received.Unix()),
		Service:   int(service),
		Source:    source,
		Summary:   summary,
	}
	details, err := list(fields, "details")
	if err != nil {
		return Event{}, err
	}
	packets, err := list(fields, "packets")
	if err != nil {
		return Event{}, err
	}
	unreadable := e.addDetails(details) + e.addPackets(packets)
	if unreadable > 0 {
		e.note(fmt.Sprintf("left out: %d entries that are not readable", unreadable))
	}
	return e, nil
}

// list returns a list that may be missing or null.
func list(fields map[string]any, key string) ([]any, error) {
	switch value := fields[key].(type) {
	case nil:
		return nil, nil
	case []any:
		return value, nil
	default:
		return nil, fmt.Errorf("%s: want a list", key)
	}
}

// addDetails returns how many could not be read.
func (e *Event) addDetails(details []any) (unreadable int) {
	for _, detail := range details {
		switch detail := detail.(type) {
		case map[string]any:
			e.Details = append(e.Details, e.detail(detail))
		case string:
			e.note(detail)
		default:
			unreadable++
		}
	}
	return unreadable
}

func (e *Event) detail(fields map[string]any) Detail {
	data, ok := text(fields["data"])
	if !ok {
		data, _ = text(fields["data:"])
	}
	kind, ok := integer(fields["type"])
	if !ok || kind != DetailInteraction {
		kind = DetailGeneric
	}
	return Detail{Timestamp: seconds(fields["timestamp"], e.Timestamp), Type: int(kind), Data: data}
}

// note adds a detail of the sensor's own.
func (e *Event) note(text string) {
	e.Details = append(e.Details, Detail{Timestamp: e.Timestamp, Type: DetailGeneric, Data: text})
}

// addPackets returns how many could not be read.
func (e *Event) addPackets(packets []any) (unreadable int) {
	for _, packet := range packets {
		fields, ok := packet.(map[string]any)
		if !ok {
			unreadable++
			continue
		}
		e.Packets = append(e.Packets, e.packet(fields))
	}
	return unreadable
}

func (e *Event) packet(fields map[string]any) Packet {
	p := Packet{
		Timestamp: seconds(fields["timestamp"], e.Timestamp),
		Protocol:  protocol(fields["protocol"]),
	}
	if port, ok := integer(fields["port"]); ok && port >= 0 && port <= math.MaxUint16 {
		p.Port = int(port)
	}
	if payload, ok := text(fields["payload"]); ok {
		p.Payload = &payload
	}
	headers, _ := fields["headers"].([]any)
	for _, header := range headers {
		if header, ok := header.(map[string]any); ok {
			p.Headers = append(p.Headers, header)
		}
	}
	return p
}

// protocol also takes the numbers of IANA, which are no numbers of the server.
func protocol(value any) int {
	n, ok := integer(value)
	switch {
	case ok && (n == ProtocolTCP || n == 6):
		return ProtocolTCP
	case ok && (n == ProtocolUDP || n == 17):
		return ProtocolUDP
	}
	return ProtocolUnknown
}

// float reads a number, also one that is written as text.
func float(value any) (float64, bool) {
	var digits string
	switch value := value.(type) {
	case json.Number:
		digits = value.String()
	case string:
		digits = strings.TrimSpace(value)
	default:
		return 0, false
	}
	f, err := strconv.ParseFloat(digits, 64)
	// Beyond 2^53 a float64 is no longer exactly one integer.
	if err != nil || math.IsNaN(f) || math.Abs(f) > 1<<53 {
		return 0, false
	}
	return f, true
}

// integer reads a number that has no fraction.
func integer(value any) (int64, bool) {
	f, ok := float(value)
	if !ok || f != math.Trunc(f) {
		return 0, false
	}
	return int64(f), true
}

// seconds reads a time; its fraction is of no use to the server.
func seconds(value any, otherwise int64) int64 {
	if f, ok := float(value); ok {
		return int64(math.Floor(f))
	}
	return otherwise
}

// text reads text, and anything else but null as its JSON.
func text(value any) (string, bool) {
	switch value := value.(type) {
	case nil:
		return "", false
	case string:
		return value, true
	case json.Number:
		return value.String(), true
	}
	encoded, err := json.Marshal(value)
	if err != nil {
		return "", false
	}
	return string(encoded), true
}

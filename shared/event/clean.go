package event

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	// maxText is what a column of the server holds. It is counted in bytes,
	// since the server cuts by bytes and then fails on half a character.
	maxText = 255
	// maxPayload is the most of base64 that fits in maxText and can be decoded.
	maxPayload = 252
	// maxHeaders is for the JSON of a packet's headers as the server writes it;
	// its way to write numbers differs a little from ours.
	maxHeaders = 240
	// maxList bounds the JSON of details and of packets, so that an event alone
	// is well below the megabyte that the server takes in one request.
	maxList = 200 << 10
	// maxAhead is how far a honeypot's clock may be ahead of the sensor's; both
	// have the same one, so more is a mistake such as milliseconds.
	maxAhead = 24 * time.Hour
)

// Clean brings an event into the limits of the server: texts are cut at the
// border of a character, characters outside of the basic multilingual plane are
// replaced, numbers out of range get a harmless value. A time that cannot be is
// replaced by when the event was received. Cleaning twice changes nothing.
func (e *Event) Clean(received time.Time) {
	e.Timestamp = plausible(e.Timestamp, received, received.Unix())
	e.Service = oneOf(e.Service, ServiceGeneric, ServiceRecon, ServiceDionaea)
	e.Source = clip(e.Source, maxText)
	e.Summary = clip(e.Summary, maxText)
	if e.Details == nil {
		e.Details = []Detail{}
	}
	for i := range e.Details {
		e.cleanDetail(&e.Details[i], received)
	}
	if e.Packets == nil {
		e.Packets = []Packet{}
	}
	for i := range e.Packets {
		e.cleanPacket(&e.Packets[i], received)
	}
	e.shorten()
}

func (e *Event) cleanDetail(d *Detail, received time.Time) {
	d.Timestamp = plausible(d.Timestamp, received, e.Timestamp)
	d.Type = oneOf(d.Type, DetailGeneric, DetailInteraction)
	d.Data = clip(d.Data, maxText)
}

func (e *Event) cleanPacket(p *Packet, received time.Time) {
	p.Timestamp = plausible(p.Timestamp, received, e.Timestamp)
	p.Protocol = oneOf(p.Protocol, ProtocolUnknown, ProtocolTCP, ProtocolUDP)
	if p.Port < 0 || p.Port > math.MaxUint16 {
		p.Port = 0
	}
	if p.Payload != nil {
		payload := clip(*p.Payload, maxText)
		if len(*p.Payload) > maxText && isBase64(payload) {
			payload = payload[:maxPayload]
		}
		p.Payload = &payload
	}
	p.Headers = cleanHeaders(p.Headers)
}

// shorten leaves out the last packets and details of an event that is too
// large, and says so in details, for which there is room.
func (e *Event) shorten() {
	const room = 400
	packets := fitting(len(e.Packets), maxList, func(i int) int { return encodedSize(e.Packets[i]) })
	details := fitting(len(e.Details), maxList, func(i int) int { return encodedSize(e.Details[i]) })
	if packets == len(e.Packets) && details == len(e.Details) {
		return
	}
	details = fitting(details, maxList-room, func(i int) int { return encodedSize(e.Details[i]) })
	leftPackets, leftDetails := len(e.Packets)-packets, len(e.Details)-details
	e.Packets, e.Details = e.Packets[:packets], e.Details[:details]
	if leftPackets > 0 {
		e.note(fmt.Sprintf("left out: %d more packets", leftPackets))
	}
	if leftDetails > 0 {
		e.note(fmt.Sprintf("left out: %d more details", leftDetails))
	}
}

// fitting returns how many of n elements are within the limit together.
func fitting(n, limit int, size func(int) int) int {
	sum := 0
	for i := range n {
		if sum += size(i); sum > limit {
			return i
		}
	}
	return n
}

// encodedSize is the size of an element of a list, with its comma.
func encodedSize(element any) int {
	encoded, err := json.Marshal(element)
	if err != nil {
		return maxList
	}
	return len(encoded) + 1
}

func plausible(timestamp int64, received time.Time, otherwise int64) int64 {
	if timestamp <= 0 || timestamp > received.Add(maxAhead).Unix() {
		return otherwise
	}
	return timestamp
}

// oneOf returns the value when it is allowed, else the first of the allowed.
func oneOf(value int, allowed ...int) int {
	for _, a := range allowed {
		if value == a {
			return value
		}
	}
	return allowed[0]
}

// clip returns text without what the server cannot store, cut at the border of
// a character to at most limit bytes.
func clip(s string, limit int) string {
	var out strings.Builder
	for _, r := range s {
		if r > 0xFFFF {
			r = utf8.RuneError
		}
		if out.Len()+utf8.RuneLen(r) > limit {
			break
		}
		out.WriteRune(r)
	}
	return out.String()
}

func isBase64(s string) bool {
	for _, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '+', c == '/':
		default:
			return false
		}
	}
	return len(s) >= maxPayload
}

// cleanHeaders keeps as many headers as the server can store.
func cleanHeaders(headers []map[string]any) []map[string]any {
	kept := []map[string]any{}
	size := 2
	for _, header := range headers {
		clean, ok := cleanValue(header, 0)
		fields, isMap := clean.(map[string]any)
		if !ok || !isMap {
			continue
		}
		encoded, err := json.Marshal(fields)
		if err != nil {
			continue
		}
		if size += 1 + serverSize(encoded); size > maxHeaders {
			break
		}
		kept = append(kept, fields)
	}
	return kept
}

// serverSize bounds the size of JSON once the server has written it again: it
// escapes slashes and everything outside of ASCII.
func serverSize(encoded []byte) int {
	size := 0
	for _, r := range string(encoded) {
		switch {
		case r >= utf8.RuneSelf:
			size += 6
		case r == '/':
			size += 2
		default:
			size++
		}
	}
	return size
}

// cleanValue returns a value of a header as encoding/json would decode it.
func cleanValue(value any, depth int) (any, bool) {
	if depth > maxDepth {
		return nil, false
	}
	switch value := value.(type) {
	case nil, bool:
		return value, true
	case string:
		return clip(value, maxText), true
	case int:
		return float64(value), true
	case float64:
		return value, !math.IsInf(value, 0) && !math.IsNaN(value)
	case json.Number:
		f, err := value.Float64()
		return f, err == nil && !math.IsInf(f, 0)
	case []any:
		return cleanElements(value, depth)
	case map[string]any:
		return cleanFields(value, depth)
	default:
		return nil, false
	}
}

func cleanElements(elements []any, depth int) (any, bool) {
	out := []any{}
	for _, element := range elements {
		if clean, ok := cleanValue(element, depth+1); ok {
			out = append(out, clean)
		}
	}
	return out, true
}

func cleanFields(fields map[string]any, depth int) (any, bool) {
	out := map[string]any{}
	for key, element := range fields {
		if clean, ok := cleanValue(element, depth+1); ok {
			out[clip(key, maxText)] = clean
		}
	}
	return out, true
}

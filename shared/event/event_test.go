package event_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"honeysens.org/dockersensor/shared/event"
	"honeysens.org/dockersensor/shared/event/eventtest"
)

const now = 1795473723

var received = time.Unix(now, 0)

// cowrie is what its plug-in sends, with the one entry that the server refuses.
const cowrie = `{"timestamp": 1795473700, "service": 1, "source": "198.51.100.7", "summary": "SSH",
	"details": [{"timestamp": 1795473700, "type": 0, "data": "login root/root"}, {"timestamp": 1795473701, "type": 1, "data:": "uname -a"}],
	"packets": []}`

// recon is an event as recorded on the way to a server.
const recon = `{"timestamp": 1795473723, "details": [{"timestamp": 1795473723, "type": 0, "data": "detail"}],
	"packets": [{"timestamp": 1795473723, "protocol": 1, "port": 22, "payload": "aGVsbG8=", "headers": [{"flags": 2}]}],
	"service": 0, "source": "198.51.100.7", "summary": "SSH"}`

func ptr(s string) *string { return &s }

func TestDecode(t *testing.T) {
	plain := func(change func(*event.Event)) event.Event {
		e := event.Event{
			Timestamp: now, Service: 1, Source: "s", Summary: "t",
			Details: []event.Detail{}, Packets: []event.Packet{},
		}
		change(&e)
		return e
	}
	none := func(*event.Event) {}
	packet := func(p event.Packet) func(*event.Event) {
		return func(e *event.Event) { e.Packets = []event.Packet{p} }
	}
	detail := func(d ...event.Detail) func(*event.Event) {
		return func(e *event.Event) { e.Details = d }
	}
	headers := []map[string]any{}
	tests := []struct {
		name, in string
		want     event.Event
	}{
		{"recon", recon, event.Event{
			Timestamp: now, Service: 0, Source: "198.51.100.7", Summary: "SSH",
			Details: []event.Detail{{Timestamp: now, Data: "detail"}},
			Packets: []event.Packet{{Timestamp: now, Protocol: 1, Port: 22, Payload: ptr("aGVsbG8="), Headers: []map[string]any{{"flags": 2.0}}}},
		}},
		{"cowrie", cowrie, event.Event{
			Timestamp: 1795473700, Service: 1, Source: "198.51.100.7", Summary: "SSH",
			Details: []event.Detail{{Timestamp: 1795473700, Data: "login root/root"}, {Timestamp: 1795473701, Type: 1, Data: "uname -a"}},
			Packets: []event.Packet{},
		}},
		{"nothing but what is needed", `{"service": 1, "source": "s", "summary": "t"}`, plain(none)},
		{"null lists and time", `{"timestamp": null, "service": 1, "source": "s", "summary": "t", "details": null, "packets": null}`, plain(none)},
		{"numbers as text and with fractions", `{"timestamp": "1795473723.9", "service": "1", "source": "s", "summary": "t"}`, plain(none)},
		{"floats", `{"timestamp": 1795473723.25, "service": 1.0, "source": "s", "summary": "t"}`, plain(none)},
		{"milliseconds", `{"timestamp": 1795473723000, "service": 1, "source": "s", "summary": "t"}`, plain(none)},
		{"time below zero", `{"timestamp": -5, "service": 1, "source": "s", "summary": "t"}`, plain(none)},
		{"time beyond everything", `{"timestamp": 1e400, "service": 1, "source": "s", "summary": "t"}`, plain(none)},
		{"unknown keys", `{"x": [{}], "service": 1, "source": "s", "summary": "t"}`, plain(none)},
		{"the last of two keys", `{"service": 9, "service": 1, "source": "s", "summary": "t"}`, plain(none)},
		{"no summary", `{"service": 1, "source": "s"}`, plain(func(e *event.Event) { e.Summary = "" })},
		{"number as summary", `{"service": 1, "source": "s", "summary": 5}`, plain(func(e *event.Event) { e.Summary = "5" })},
		{"half a surrogate pair", `{"service": 1, "source": "s", "summary": "a\ud800b"}`, plain(func(e *event.Event) { e.Summary = "a\uFFFDb" })},
		{"beyond the basic plane", `{"service": 1, "source": "s", "summary": "a😀b\ud83d\ude00"}`, plain(func(e *event.Event) { e.Summary = "a\uFFFDb\uFFFD" })},
		{"invalid UTF-8", "{\"service\": 1, \"source\": \"s\", \"summary\": \"a\xffb\"}", plain(func(e *event.Event) { e.Summary = "a\uFFFDb" })},
		{"cut between characters", `{"service": 1, "source": "s", "summary": "` + strings.Repeat("ä", 200) + `"}`,
			plain(func(e *event.Event) { e.Summary = strings.Repeat("ä", 127) })},
		{"detail with nothing", `{"service": 1, "source": "s", "summary": "t", "details": [{}]}`, plain(detail(event.Detail{Timestamp: now}))},
		{"detail as text", `{"service": 1, "source": "s", "summary": "t", "details": ["x"]}`, plain(detail(event.Detail{Timestamp: now, Data: "x"}))},
		{"detail of another type", `{"service": 1, "source": "s", "summary": "t", "details": [{"type": 7, "data": {"a": [1]}}]}`,
			plain(detail(event.Detail{Timestamp: now, Data: `{"a":[1]}`}))},
		{"details that nobody can read", `{"service": 1, "source": "s", "summary": "t", "details": [1, {"data": "x"}, null], "packets": [[]]}`,
			plain(detail(event.Detail{Timestamp: now, Data: "x"}, event.Detail{Timestamp: now, Data: "left out: 3 entries that are not readable"}))},
		{"packet with nothing", `{"service": 1, "source": "s", "summary": "t", "packets": [{}]}`, plain(packet(event.Packet{Timestamp: now, Headers: headers}))},
		{"packet out of range", `{"service": 1, "source": "s", "summary": "t", "packets": [{"protocol": 17, "port": 65536, "headers": {"flags": 2}}]}`,
			plain(packet(event.Packet{Timestamp: now, Protocol: 2, Headers: headers}))},
		{"port as text", `{"service": 1, "source": "s", "summary": "t", "packets": [{"protocol": 6, "port": "22", "headers": [1, {"flags": 2}]}]}`,
			plain(packet(event.Packet{Timestamp: now, Protocol: 1, Port: 22, Headers: []map[string]any{{"flags": 2.0}}}))},
		{"long payload stays base64", `{"service": 1, "source": "s", "summary": "t", "packets": [{"payload": "` + strings.Repeat("YWFh", 100) + `"}]}`,
			plain(packet(event.Packet{Timestamp: now, Payload: ptr(strings.Repeat("YWFh", 63)), Headers: headers}))},
		{"headers that cannot be stored", `{"service": 1, "source": "s", "summary": "t", "packets": [{"headers": [{"a": 1e999}, {"b": "` + strings.Repeat("x", 300) + `"}, {"c": 1}]}]}`,
			plain(packet(event.Packet{Timestamp: now, Headers: []map[string]any{{}}}))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := event.Decode([]byte(tt.in), received)
			if err != nil {
				t.Fatalf("decode: %v", err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("event (-want +got):\n%s", diff)
			}
			mustStore(t, got)
		})
	}
}

// mustStore proves that the server takes an event.
func mustStore(t *testing.T, e event.Event) []byte {
	t.Helper()
	encoded, err := json.Marshal(e)
	if err != nil {
		t.Fatalf("encode: %v", err)
	}
	if _, err := eventtest.Store(fmt.Appendf(nil, "[%s]", encoded)); err != nil {
		t.Fatalf("the server refuses %.500s: %v", encoded, err)
	}
	return encoded
}

func TestDecodeRefuses(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"nothing", ``, "not a JSON object"},
		{"text", `hello`, "not a JSON object"},
		{"null", `null`, "null"},
		{"a list", `[{"service": 1}]`, "not a JSON object"},
		{"cut", `{"service": 1`, "not a JSON object"},
		{"two values", `{"service": 1, "source": "s", "summary": "t"} {}`, "more than one"},
		{"trailing text", `{"service": 1, "source": "s", "summary": "t"} x`, "more than one"},
		{"NaN of Python", `{"timestamp": NaN, "service": 1, "source": "s", "summary": "t"}`, "not a JSON object"},
		{"no service", `{"source": "s", "summary": "t"}`, "service"},
		{"unknown service", `{"service": 3, "source": "s", "summary": "t"}`, "service"},
		{"half a service", `{"service": 0.5, "source": "s", "summary": "t"}`, "service"},
		{"true as service", `{"service": true, "source": "s", "summary": "t"}`, "service"},
		{"no source", `{"service": 1, "summary": "t"}`, "source"},
		{"number as source", `{"service": 1, "source": 7, "summary": "t"}`, "source"},
		{"details are text", `{"service": 1, "source": "s", "summary": "t", "details": "x"}`, "details"},
		{"packets are an object", `{"service": 1, "source": "s", "summary": "t", "packets": {}}`, "packets"},
		{"deep", strings.Repeat("[", 100_000), "deeper"},
		{"deep in an object", `{"a":` + strings.Repeat(`{"a":`, 16) + `1`, "deeper"},
		{"wide", "[" + strings.Repeat("0,", 60_000) + "0]", "more than 50000"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := event.Decode([]byte(tt.in), received); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error %v, want %q", err, tt.want)
			}
		})
	}
}

// TestCleanShortens gives an event far more than the server takes at once.
func TestCleanShortens(t *testing.T) {
	huge := func() event.Event {
		e := event.Event{Timestamp: now, Service: 1}
		for range 3000 {
			e.Details = append(e.Details, event.Detail{Timestamp: now, Data: strings.Repeat("\x01", 300)})
			e.Packets = append(e.Packets, event.Packet{Timestamp: now, Payload: ptr(strings.Repeat("<", 300))})
		}
		return e
	}
	both, packetsOnly := huge(), huge()
	packetsOnly.Details = packetsOnly.Details[:1]
	for name, e := range map[string]event.Event{"both": both, "packets only": packetsOnly} {
		t.Run(name, func(t *testing.T) {
			packets := len(e.Packets)
			e.Clean(received)
			encoded := mustStore(t, e)
			if len(encoded) > 450<<10 || len(encoded) < 200<<10 {
				t.Errorf("%d bytes are left", len(encoded))
			}
			note := fmt.Sprintf("left out: %d more packets", packets-len(e.Packets))
			if !strings.Contains(string(encoded), note) {
				t.Errorf("no detail says %q", note)
			}
			before := string(encoded)
			e.Clean(received)
			if again := string(mustStore(t, e)); again != before {
				t.Error("cleaning twice changes the event")
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(recon))
	f.Add([]byte(cowrie))
	f.Add([]byte(`{"timestamp": "1e3", "service": 2.0, "source": "ä😀", "details": [{"data:": [1]}], "packets": [{"headers": [{"/": "ü", "n": 1e300}], "payload": "é"}]}`))
	f.Add([]byte(`{"service": 1, "source": "s", "packets": [{"headers": [{"flags": 2}, {"flags": {"a": [null, true, -0.0, 123456789012345678901]}}]}]}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		e, err := event.Decode(in, received)
		if err != nil {
			return
		}
		encoded := mustStore(t, e)
		var again event.Event
		if err := json.Unmarshal(encoded, &again); err != nil {
			t.Fatalf("decode own output: %v", err)
		}
		again.Clean(received)
		if diff := cmp.Diff(e, again); diff != "" {
			t.Fatalf("cleaning twice changes the event (-once +twice):\n%s", diff)
		}
	})
}

package wire

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func wrap(field, inner string) []byte {
	return fmt.Appendf(nil, `{%q: %q}`, field, base64.StdEncoding.EncodeToString([]byte(inner)))
}

// object with some fields replaced by JSON text; "" removes one.
func edited(t *testing.T, fields map[string]string, edits map[string]string) string {
	t.Helper()
	all := maps.Clone(fields)
	maps.Copy(all, edits)
	var parts []string
	for key, value := range all {
		if value != "" {
			parts = append(parts, fmt.Sprintf("%q: %s", key, value))
		}
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

var statusFields = map[string]string{
	"timestamp": "1", "status": "1", "ip": `"192.0.2.10"`, "free_mem": "1", "disk_usage": "1", "disk_total": "1",
	"sw_version": `"1"`, "service_status": `{"1": 0}`,
}

// outcome is what the server makes of a request.
func outcome(err error) string {
	var store *StoreError
	switch {
	case err == nil:
		return "200"
	case errors.Is(err, ErrInvalid):
		return "400"
	case errors.As(err, &store):
		return "500"
	}
	return err.Error()
}

func TestPoll(t *testing.T) {
	astral := `"\ud83d\ude00"`
	tests := []struct {
		name  string
		edits map[string]string
		want  string
	}{
		{"good", nil, "200"},
		{"IPv6", map[string]string{"ip": `"2001:db8::1"`}, "200"},
		{"zone", map[string]string{"ip": `"fe80::1%eth0"`}, "400"},
		{"prefix length", map[string]string{"ip": `"192.0.2.1/24"`}, "400"},
		{"no address", map[string]string{"ip": `""`}, "400"},
		{"float timestamp", map[string]string{"timestamp": "1.0"}, "400"},
		{"float memory", map[string]string{"free_mem": "1.5"}, "400"},
		{"exponent", map[string]string{"disk_usage": "1e3"}, "400"},
		{"text for a number", map[string]string{"status": `"1"`}, "400"},
		{"highest memory", map[string]string{"free_mem": "2147483647"}, "200"},
		{"too much memory", map[string]string{"free_mem": "2147483648"}, "500"},
		{"unknown status", map[string]string{"status": "3"}, "500"},
		{"long version", map[string]string{"sw_version": `"` + strings.Repeat("x", 255) + `"`}, "200"},
		{"too long version", map[string]string{"sw_version": `"` + strings.Repeat("x", 256) + `"`}, "500"},
		{"version beyond the basic plane", map[string]string{"sw_version": astral}, "500"},
		{"half a character", map[string]string{"sw_version": `"\ud83d"`}, "400"},
		{"services as a list", map[string]string{"service_status": "[]"}, "400"},
		{"too many services", map[string]string{"service_status": `{"` + strings.Repeat("1", 250) + `": 0}`}, "500"},
	}
	for key := range statusFields {
		tests = append(tests, struct {
			name  string
			edits map[string]string
			want  string
		}{"no " + key, map[string]string{key: ""}, "400"})
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			poll, err := ParsePoll(wrap("status", edited(t, statusFields, test.edits)))
			if err == nil {
				err = CheckStore(poll.Status)
			}
			if got := outcome(err); got != test.want {
				t.Errorf("got %s (%v), want %s", got, err, test.want)
			}
		})
	}
}

func TestEnvelope(t *testing.T) {
	for _, body := range []string{"", "[]", "{}", `{"status": 1}`, `{"status": "%%%"}`, `{"status": "e30="} {}`, `{"status": "W10="}`, "\xff"} {
		if _, err := ParsePoll([]byte(body)); outcome(err) != "400" {
			t.Errorf("%q: %v", body, err)
		}
	}
}

func TestFingerprints(t *testing.T) {
	inner := base64.StdEncoding.EncodeToString([]byte(edited(t, statusFields, nil)))
	poll, err := ParsePoll(fmt.Appendf(nil, `{"status": %q, "srv_crt_fp": "aa", "eapol_ca_crt_fp": null}`, inner))
	if err != nil {
		t.Fatal(err)
	}
	if poll.ServerFP == nil || *poll.ServerFP != "aa" || poll.EAPOLCAFP != nil || poll.EAPOLClientFP != nil {
		t.Errorf("%+v", poll)
	}
}

var eventFields = map[string]string{
	"timestamp": "1", "service": "0", "source": `"192.0.2.1"`, "summary": `"Scan"`,
	"details": `[{"timestamp": 1, "type": 0, "data": "x"}]`,
	"packets": `[{"timestamp": 1, "protocol": 1, "port": 22, "payload": null, "headers": [{"flags": 2}]}]`,
}

func TestEvents(t *testing.T) {
	detail := func(fields string) map[string]string { return map[string]string{"details": "[{" + fields + "}]"} }
	packet := func(fields string) map[string]string { return map[string]string{"packets": "[{" + fields + "}]"} }
	text := func(n int) string { return `"` + strings.Repeat("x", n) + `"` }
	tests := []struct {
		name  string
		edits map[string]string
		want  string
	}{
		{"good", nil, "200"},
		{"extra key", map[string]string{"extra": "1"}, "200"},
		{"service 2", map[string]string{"service": "2"}, "200"},
		{"service 3", map[string]string{"service": "3"}, "500"},
		{"no service", map[string]string{"service": "null"}, "400"},
		{"long source", map[string]string{"source": text(256)}, "500"},
		{"source beyond the basic plane", map[string]string{"source": `"😀"`}, "500"},
		{"long summary", map[string]string{"summary": text(255)}, "200"},
		{"empty lists", map[string]string{"details": "[]", "packets": "[]"}, "200"},
		{"details as an object", map[string]string{"details": "{}"}, "400"},
		{"detail without a time", detail(`"timestamp": null, "type": 0, "data": ""`), "400"},
		{"detail of type 2", detail(`"timestamp": 1, "type": 2, "data": ""`), "500"},
		{"detail with a misspelt key", detail(`"timestamp": 1, "type": 0, "data:": ""`), "400"},
		{"long detail", detail(`"timestamp": 1, "type": 0, "data": ` + text(1000)), "200"},
		{"detail cut within a character", detail(`"timestamp": 1, "type": 0, "data": "` + strings.Repeat("x", 254) + `ü"`), "500"},
		{"detail cut between characters", detail(`"timestamp": 1, "type": 0, "data": "` + strings.Repeat("x", 255) + `ü"`), "200"},
		{"port 65536", packet(`"timestamp": 1, "protocol": 1, "port": 65536, "payload": null, "headers": []`), "400"},
		{"protocol 3", packet(`"timestamp": 1, "protocol": 3, "port": 1, "payload": null, "headers": []`), "500"},
		{"no payload key", packet(`"timestamp": 1, "protocol": 1, "port": 1, "headers": []`), "400"},
		{"long payload", packet(`"timestamp": 1, "protocol": 1, "port": 1, "headers": [], "payload": ` + text(1000)), "200"},
		{"long headers", packet(`"timestamp": 1, "protocol": 1, "port": 1, "payload": null, "headers": [{"x": ` + text(255) + `}]`), "500"},
		{"headers as an object", packet(`"timestamp": 1, "protocol": 1, "port": 1, "payload": null, "headers": {}`), "400"},
	}
	for key := range eventFields {
		tests = append(tests, struct {
			name  string
			edits map[string]string
			want  string
		}{"no " + key, map[string]string{key: ""}, "400"})
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			bad := edited(t, eventFields, test.edits)
			good := edited(t, eventFields, nil)
			_, err := ParseEvents(wrap("events", "["+good+", "+bad+"]"))
			if got := outcome(err); got != test.want {
				t.Errorf("got %s (%v), want %s", got, err, test.want)
			}
		})
	}
}

func TestCuts(t *testing.T) {
	long := strings.Repeat("x", 300)
	events, err := ParseEvents(wrap("events", "["+edited(t, eventFields, map[string]string{
		"details": `[{"timestamp": 1, "type": 0, "data": "` + long + `"}]`,
		"packets": `[{"timestamp": 1, "protocol": 1, "port": 22, "payload": "` + long + `", "headers": []}]`,
	})+"]"))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(events[0].Details[0].Data); n != 255 {
		t.Errorf("data of %d bytes", n)
	}
	if n := len(*events[0].Packets[0].Payload); n != 255 {
		t.Errorf("payload of %d characters", n)
	}
}

func TestTooManyEvents(t *testing.T) {
	event := edited(t, eventFields, nil)
	list := "[" + strings.Repeat(event+",", 8000) + event + "]"
	if _, err := ParseEvents(wrap("events", list)); !errors.Is(err, ErrMemory) {
		t.Errorf("error %v", err)
	}
}

func TestEncode(t *testing.T) {
	value := Object{{Key: "b/ü", Value: "<&>\u2028😀\\/\n"}, {Key: "a", Value: json.RawMessage(`{"x": "a\/b/c"}`)}, {Key: "e", Value: Object{}}}
	got, err := Encode(value)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"b\/\u00fc":"<&>\u2028\ud83d\ude00\\\/\n","a":{"x":"a\/b\/c"},"e":{}}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("{}"))
	f.Add([]byte(`{"timestamp": 1.0, "x": "\ud83d"}`))
	f.Fuzz(func(t *testing.T, inner []byte) {
		for _, field := range []string{"status", "events"} {
			body := wrap(field, string(inner))
			if poll, err := ParsePoll(body); err == nil && len(poll.Status.ServiceStatus) == 0 {
				t.Error("a status without services passed")
			}
			events, err := ParseEvents(body)
			for _, e := range events {
				if err == nil && (e.Service > 2 || len(e.Source) > 4*255) {
					t.Errorf("stored %+v", e)
				}
			}
		}
	})
}

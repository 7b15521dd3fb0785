package sensorapi

import (
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"honeysens.org/dockersensor/packaging/lab/admin"
	"honeysens.org/dockersensor/packaging/lab/server/internal/state"
	"honeysens.org/dockersensor/packaging/lab/server/internal/wanted"
)

const secret = "409c5176c25d4686b63bf9d37b1e8b097ab6009d2b4817cdfb57de166f375d3e"

// fixture is a server with one sensor, at a time that stands still.
type fixture struct {
	t     *testing.T
	api   *API
	store *state.Store
	now   time.Time
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	store, err := state.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	f := &fixture{t: t, store: store, now: time.Unix(1795473600, 0)}
	cfg := Config{Server: wanted.Server{Host: "hs", Port: 443, Interval: 5}, Now: func() time.Time { return f.now }}
	f.api = New(cfg, store, chain("chain"), zaptest.NewLogger(t))
	if _, err := store.AddSensor(admin.Sensor{ID: 1, Secret: secret}); err != nil {
		t.Fatal(err)
	}
	return f
}

// request makes a signed request.
func (f *fixture) request(method, path, body string, edit func(http.Header)) *http.Request {
	f.t.Helper()
	r := httptest.NewRequestWithContext(f.t.Context(), method, path, strings.NewReader(body))
	ts := strconv.FormatInt(f.now.Unix(), 10)
	r.Header.Set("X-HS-Type", "sha256")
	r.Header.Set("X-HS-Sensor", "1")
	r.Header.Set("X-HS-TS", ts)
	r.Header.Set("X-HS-Auth", mac(secret, ts, word(method), []byte(body)))
	if edit != nil {
		edit(r.Header)
	}
	return r
}

func (f *fixture) do(r *http.Request) *httptest.ResponseRecorder {
	recorder := httptest.NewRecorder()
	f.api.ServeHTTP(recorder, r)
	return recorder
}

func status(timestamp int64) string {
	inner := fmt.Sprintf(`{"timestamp": %d, "status": 1, "ip": "192.0.2.1", "free_mem": 1, "disk_usage": 1, "disk_total": 1, "sw_version": "1", "service_status": {}}`, timestamp)
	return `{"status": "` + base64.StdEncoding.EncodeToString([]byte(inner)) + `"}`
}

func events(n int) string {
	one := `{"timestamp": 1, "service": 0, "source": "a", "summary": "b", "details": [], "packets": []}`
	inner := "[" + strings.TrimSuffix(strings.Repeat(one+",", n), ",") + "]"
	return `{"events": "` + base64.StdEncoding.EncodeToString([]byte(inner)) + `"}`
}

func TestRefusals(t *testing.T) {
	set := func(key, value string) func(http.Header) {
		return func(h http.Header) { h.Set(key, value) }
	}
	at := func(f *fixture, offset int64) func(http.Header) {
		ts := strconv.FormatInt(f.now.Unix()+offset, 10)
		return func(h http.Header) {
			h.Set("X-HS-TS", ts)
			h.Set("X-HS-Auth", mac(secret, ts, "create", []byte(status(f.now.Unix()))))
		}
	}
	tests := []struct {
		name string
		edit func(*fixture) func(http.Header)
		want int
	}{
		{"good", func(*fixture) func(http.Header) { return nil }, 200},
		{"60 s behind", func(f *fixture) func(http.Header) { return at(f, -60) }, 200},
		{"61 s behind", func(f *fixture) func(http.Header) { return at(f, -61) }, 403},
		{"60 s ahead", func(f *fixture) func(http.Header) { return at(f, 60) }, 200},
		{"61 s ahead", func(f *fixture) func(http.Header) { return at(f, 61) }, 403},
		{"no MAC", func(*fixture) func(http.Header) { return set("X-HS-Auth", "") }, 403},
		{"wrong MAC", func(*fixture) func(http.Header) { return set("X-HS-Auth", strings.Repeat("0", 64)) }, 403},
		{"MAC in upper case", func(f *fixture) func(http.Header) {
			return func(h http.Header) { h.Set("X-HS-Auth", strings.ToUpper(h.Get("X-HS-Auth"))) }
		}, 403},
		{"no type", func(*fixture) func(http.Header) { return set("X-HS-Type", "") }, 403},
		{"unknown sensor before its MAC", func(*fixture) func(http.Header) {
			return func(h http.Header) {
				h.Set("X-HS-Sensor", "2")
				h.Set("X-HS-Auth", "0")
			}
		}, 400},
		{"multipart", func(*fixture) func(http.Header) { return set("Content-Type", "multipart/form-data; boundary=x") }, 403},
		{"compressed", func(*fixture) func(http.Header) { return set("Content-Encoding", "gzip") }, 403},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t)
			got := f.do(f.request(http.MethodPost, "/api/sensors/status", status(f.now.Unix()), test.edit(f)))
			if got.Code != test.want {
				t.Fatalf("status %d, want %d", got.Code, test.want)
			}
			if signed := got.Header().Get("x-hs-auth") != ""; signed != (got.Code == 200) {
				t.Errorf("answer %d signed: %v", got.Code, signed)
			}
			if got.Code != 200 && got.Body.String() != `{"code":0}` {
				t.Errorf("body %s", got.Body)
			}
		})
	}
}

func TestTimeOfStatus(t *testing.T) {
	f := newFixture(t)
	now := f.now.Unix()
	// Each one is judged by what the ones before have left.
	for _, step := range []struct {
		timestamp int64
		want      int
	}{
		{now - 121, 400}, {now - 120, 200}, {now, 200}, {now, 200}, {now - 1, 400}, {now + 1000, 200}, {now, 400},
	} {
		got := f.do(f.request(http.MethodPost, "/api/sensors/status", status(step.timestamp), nil))
		if got.Code != step.want {
			t.Errorf("timestamp now%+d: status %d, want %d", step.timestamp-now, got.Code, step.want)
		}
	}
}

func TestEventsAreStoredAsTheyCome(t *testing.T) {
	f := newFixture(t)
	for range 2 {
		got := f.do(f.request(http.MethodPost, "/api/events", events(3), nil))
		if got.Code != 200 || got.Body.Len() != 0 {
			t.Fatalf("%d %s", got.Code, got.Body)
		}
		if want := mac(secret, got.Header().Get("x-hs-ts"), "create", nil); got.Header().Get("x-hs-auth") != want {
			t.Error("wrong MAC over the empty body")
		}
	}
	if n := len(f.store.Events(0, 0)); n != 6 {
		t.Errorf("%d events, want 6: nothing is recognised as a repetition", n)
	}
}

func TestUnknownRoutes(t *testing.T) {
	f := newFixture(t)
	for _, r := range []*http.Request{
		f.request(http.MethodGet, "/api/sensors/status", "", nil), f.request(http.MethodPost, "/api/nothing", "", nil),
		f.request(http.MethodGet, "/api/events", "", nil),
	} {
		if got := f.do(r); got.Code != 500 || !strings.HasPrefix(got.Body.String(), `{"error":`) {
			t.Errorf("%s %s: %d %s", r.Method, r.URL.Path, got.Code, got.Body)
		}
	}
}

func TestGiantBody(t *testing.T) {
	f := newFixture(t)
	got := f.do(f.request(http.MethodPost, "/api/events", strings.Repeat("x", maxBody+1), nil))
	if got.Code != 500 || got.Body.Len() != 0 {
		t.Errorf("%d %s", got.Code, got.Body)
	}
}

func TestCompressedAnswer(t *testing.T) {
	f := newFixture(t)
	got := f.do(f.request(http.MethodPost, "/api/sensors/status", status(f.now.Unix()), func(h http.Header) { h.Set("Accept-Encoding", "gzip") }))
	zip, err := gzip.NewReader(got.Body)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(zip)
	if err != nil {
		t.Fatal(err)
	}
	if got.Header().Get("x-hs-auth") != mac(secret, got.Header().Get("x-hs-ts"), "create", body) {
		t.Error("the MAC is not that of the plain body")
	}
	var answer map[string]any
	if err := json.Unmarshal(body, &answer); err != nil || len(answer) != 38 {
		t.Errorf("%d keys, %v", len(answer), err)
	}
}

func TestFaults(t *testing.T) {
	tests := []struct {
		kind   string
		status int
		lost   bool
		signed bool
		stored int
	}{
		{kind: admin.FaultUnavailable, status: 503},
		{kind: admin.FaultError, status: 500},
		{kind: admin.FaultRejected, status: 400},
		{kind: admin.FaultForbidden, status: 403},
		{kind: admin.FaultDrop, lost: true},
		{kind: admin.FaultAfter, lost: true, stored: 1},
		{kind: admin.FaultNoMAC, status: 200, stored: 1},
		{kind: admin.FaultGarbage, status: 200},
		{kind: admin.FaultDelay, status: 200, signed: true, stored: 1},
	}
	for _, test := range tests {
		t.Run(test.kind, func(t *testing.T) {
			f := newFixture(t)
			f.api.AddFault(admin.Fault{Path: admin.PathEvents, Kind: test.kind, Count: 1, DelayMS: 1})
			got, lost := attempt(f)
			if lost != test.lost {
				t.Fatalf("connection lost: %v", lost)
			}
			if !lost && (got.Code != test.status || (got.Header().Get("x-hs-auth") != "") != test.signed) {
				t.Errorf("%d %v", got.Code, got.Header())
			}
			if n := len(f.store.Events(0, 0)); n != test.stored {
				t.Errorf("%d events stored, want %d", n, test.stored)
			}
			if got, lost := attempt(f); lost || got.Code != 200 {
				t.Error("the fault came twice")
			}
		})
	}
}

// attempt posts an event, and tells whether there was no answer.
func attempt(f *fixture) (got *httptest.ResponseRecorder, lost bool) {
	defer func() {
		if err, ok := recover().(error); ok {
			lost = errors.Is(err, http.ErrAbortHandler)
		}
	}()
	return f.do(f.request(http.MethodPost, "/api/events", events(1), nil)), false
}

func TestWrongMAC(t *testing.T) {
	f := newFixture(t)
	f.api.AddFault(admin.Fault{Path: admin.PathAny, Kind: admin.FaultWrongMAC, Sensor: 1})
	got, _ := attempt(f)
	if got.Code != 200 || got.Header().Get("x-hs-auth") != strings.Repeat("0", 64) {
		t.Errorf("%d %v", got.Code, got.Header())
	}
	f.api.ClearFaults()
	if got, _ := attempt(f); got.Header().Get("x-hs-auth") == strings.Repeat("0", 64) {
		t.Error("the fault is still there")
	}
}

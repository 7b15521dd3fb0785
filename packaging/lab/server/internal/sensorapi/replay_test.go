package sensorapi

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap/zaptest"

	"honeysens.org/dockersensor/packaging/lab/admin"
	"honeysens.org/dockersensor/packaging/lab/server/internal/state"
	"honeysens.org/dockersensor/packaging/lab/server/internal/wanted"
)

// chain is what a server announces.
type chain string

func (c chain) Chain() string { return string(c) }

// recording is a request and its answer as a HoneySens server 2.9.0 gave it.
type recording struct {
	request *http.Request
	status  int
	header  http.Header
	body    []byte
	// wanted is the body as an object, nil when it is none.
	wanted map[string]json.RawMessage
	date   time.Time
}

func load(t *testing.T, name string) recording {
	t.Helper()
	path := filepath.Join("testdata", "http", name)
	request, err := os.ReadFile(path + ".request")
	if err != nil {
		t.Fatal(err)
	}
	response, err := os.ReadFile(path + ".response")
	if err != nil {
		t.Fatal(err)
	}
	var r recording
	if r.request, err = http.ReadRequest(bufio.NewReader(bytes.NewReader(request))); err != nil {
		t.Fatal(err)
	}
	r.request.RequestURI = ""
	answer, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(response)), r.request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	if r.body, err = io.ReadAll(answer.Body); err != nil {
		t.Fatal(err)
	}
	r.status, r.header = answer.StatusCode, answer.Header
	if r.date, err = http.ParseTime(r.header.Get("Date")); err != nil {
		t.Fatal(err)
	}
	_ = json.Unmarshal(r.body, &r.wanted)
	return r
}

// secrets are the names and keys of the recorded sensors.
func secrets(t *testing.T) map[int][2]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "http", "secrets.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	out := map[int][2]string{}
	for line := range strings.Lines(string(text)) {
		fields := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		id, err := strconv.Atoi(fields[0])
		if err != nil {
			t.Fatal(err)
		}
		out[id] = [2]string{fields[1], fields[2]}
	}
	return out
}

// prepare makes a server in the state that the recording was made in.
func prepare(t *testing.T, r recording, edit func(*admin.Sensor), registry *url.URL) (*API, *state.Store) {
	t.Helper()
	store, err := state.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	server := wanted.Server{Name: "hs.example.test", Host: "hs.example.test", Port: 443, Interval: 5, Division: 1}
	if id, err := strconv.Atoi(r.request.Header.Get("X-HS-Sensor")); err == nil && secrets(t)[id][1] != "" {
		sensor := admin.Sensor{ID: id, Name: secrets(t)[id][0], Secret: secrets(t)[id][1], Location: "lab", Wanted: map[string]json.RawMessage{}}
		known := wanted.Of(server, admin.Sensor{})
		for key, value := range r.wanted {
			if _, ok := known[key]; ok {
				sensor.Wanted[key] = value
			}
		}
		if edit != nil {
			edit(&sensor)
		}
		if _, err := store.AddSensor(sensor); err != nil {
			t.Fatal(err)
		}
	}
	var announced string
	if err := json.Unmarshal(r.wanted["server_crt"], &announced); err != nil {
		announced = "none"
	}
	cfg := Config{Server: server, Registry: registry, Now: func() time.Time { return r.date }}
	return New(cfg, store, chain(announced), zaptest.NewLogger(t)), store
}

func services(t *testing.T, store *state.Store) {
	t.Helper()
	rev := func(arch, repository string, catchAll bool, ports string) admin.Revision {
		return admin.Revision{Revision: "1.0", Architecture: arch, URI: "honeysens/" + repository + ":" + arch + "-1.0", Raw: catchAll, CatchAll: catchAll, PortAssignment: ports}
	}
	for _, s := range []admin.Service{
		{Label: "svc1", Repository: "honeysens/svc1", Revisions: []admin.Revision{rev("amd64", "svc1", false, `{"22/tcp": 2222}`), rev("armhf", "svc1", false, `{"22/tcp": 2222}`)}},
		{Label: "recon", Repository: "honeysens/recon", Revisions: []admin.Revision{rev("amd64", "recon", true, "{}")}},
		{Label: "only-arm", Repository: "honeysens/only-arm", Revisions: []admin.Revision{rev("armhf", "only-arm", false, "{22: 2222}")}},
	} {
		if _, err := store.AddService(s); err != nil {
			t.Fatal(err)
		}
	}
}

func statusOf(timestamp int64, services string) *admin.Status {
	return &admin.Status{Timestamp: timestamp, Since: timestamp, Status: 1, ServiceStatus: json.RawMessage(services)}
}

func TestReplay(t *testing.T) {
	firmware := func(s *admin.Sensor) {
		s.Wanted["firmware"] = json.RawMessage(`{"bbb":{"revision":"2.8.0","uri":"api/platforms/firmware/1/raw"},"docker_x86":{"revision":"2.8.0","uri":"api/platforms/firmware/3/raw"}}`)
	}
	assigned := func(first string) func(*admin.Sensor) {
		return func(s *admin.Sensor) {
			firmware(s)
			s.Services = []admin.Assignment{{Service: 1, Revision: first}, {Service: 2}, {Service: 3}}
			s.Status = statusOf(1795473913, `{"svc1":0,"recon":1}`)
		}
	}
	later := func(timestamp int64) func(*admin.Sensor) {
		return func(s *admin.Sensor) { s.Status = statusOf(timestamp, "{}") }
	}
	tests := []struct {
		name string
		edit func(*admin.Sensor)
	}{
		{name: "auth_skew_61"},
		{name: "auth_unknown_sensor"},
		{name: "auth_wrong_hmac"},
		{name: "poll_00_ok"},
		{name: "poll_02_fp_wrong"},
		{name: "poll_stale_ts", edit: later(1795473639)},
		{name: "poll_with_firmware", edit: firmware},
		{name: "poll_with_services", edit: assigned("")},
		{name: "poll_service_missing_revision", edit: assigned("9.9")},
		{name: "poll_cfg_dhcp", edit: firmware},
		{name: "poll_cfg_static", edit: firmware},
		{name: "poll_cfg_proxy-auth", edit: firmware},
		{name: "poll_cfg_eap-tls", edit: firmware},
		{name: "poll_noeap_0", edit: func(s *admin.Sensor) {
			firmware(s)
			s.Status = statusOf(1795473915, "{}")
		}},
		{name: "events_00_ok"},
		{name: "events_batch_valbad"},
		{name: "events_service_3"},
		{name: "firmware_00_ok"},
		{name: "firmware_range"},
		{name: "firmware_unknown_id"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := load(t, test.name)
			api, store := prepare(t, r, test.edit, nil)
			services(t, store)
			addFirmware(t, store)
			compare(t, api, r)
		})
	}
}

// addFirmware stores the archive of the recordings.
func addFirmware(t *testing.T, store *state.Store) {
	t.Helper()
	archive := load(t, "firmware_00_ok").body
	file := filepath.Join(t.TempDir(), "firmware")
	if err := os.WriteFile(file, archive, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := store.AddFirmware(admin.Firmware{Platform: "bbb", Revision: "2.8.0"}, file); err != nil {
		t.Fatal(err)
	}
}

// compare replays a request and compares everything but the cookie and what the
// transport of the real server adds.
func compare(t *testing.T, api http.Handler, r recording) {
	t.Helper()
	recorder := httptest.NewRecorder()
	api.ServeHTTP(recorder, r.request)
	got := recorder.Result()
	body, err := io.ReadAll(got.Body)
	if err != nil {
		t.Fatal(err)
	}
	if got.StatusCode != r.status {
		t.Errorf("status %d, want %d", got.StatusCode, r.status)
	}
	if diff := cmp.Diff(string(r.body), string(body)); diff != "" {
		t.Error(diff)
	}
	for _, h := range []http.Header{got.Header, r.header} {
		h.Del("Set-Cookie")
		h.Del("Connection")
		h.Set("Content-Length", "")
	}
	if diff := cmp.Diff(r.header, got.Header); diff != "" {
		t.Error(diff)
	}
}

func TestReplayRegistry(t *testing.T) {
	r := load(t, "registry_v2_honeysens_svc1_manifests_amd64-1.0")
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		if request.URL.Path != "/v2/honeysens/svc1/manifests/amd64-1.0" {
			t.Errorf("path %s", request.URL.Path)
		}
		w.Header().Set("Content-Type", r.header.Get("Content-Type"))
		_, _ = w.Write(r.body)
	}))
	defer upstream.Close()
	base, err := url.Parse(upstream.URL)
	if err != nil {
		t.Fatal(err)
	}
	api, _ := prepare(t, r, nil, base)
	recorder := httptest.NewRecorder()
	api.ServeHTTP(recorder, r.request)
	if recorder.Code != http.StatusOK || recorder.Body.String() != string(r.body) || recorder.Header().Get("Content-Type") != r.header.Get("Content-Type") {
		t.Errorf("%d %v %s", recorder.Code, recorder.Header(), recorder.Body)
	}
	for _, method := range []string{http.MethodPut, http.MethodPost, http.MethodDelete, http.MethodPatch} {
		recorder := httptest.NewRecorder()
		api.ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), method, "/v2/honeysens/svc1/blobs/uploads/", nil))
		if recorder.Code != http.StatusForbidden {
			t.Errorf("%s is answered %d", method, recorder.Code)
		}
	}
}

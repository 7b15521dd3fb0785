package hsapi

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"honeysens.org/dockersensor/manager/internal/config"
	"honeysens.org/dockersensor/shared/helperapi"
)

// exchange is a request with its answer, recorded at a HoneySens server 2.9.0.
type exchange struct {
	name         string
	request      *http.Request
	requestBody  []byte
	response     *http.Response
	responseBody []byte
	secret       string
}

func (e *exchange) word() string {
	if e.request.Method == http.MethodPost {
		return wordPost
	}
	return wordGet
}

func secrets(t testing.TB) map[string]string {
	t.Helper()
	text, err := os.ReadFile("testdata/http/secrets.tsv")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Split(strings.TrimSuffix(line, "\n"), "\t"); len(fields) == 3 {
			all[fields[0]] = fields[2]
		}
	}
	return all
}

// recorded reads all exchanges.
func recorded(t testing.TB) map[string]*exchange {
	t.Helper()
	files, err := filepath.Glob("testdata/http/*.request")
	if err != nil || len(files) < 18 {
		t.Fatalf("recorded requests: %d, %v", len(files), err)
	}
	known := secrets(t)
	all := map[string]*exchange{}
	for _, file := range files {
		e := &exchange{name: strings.TrimSuffix(filepath.Base(file), ".request")}
		e.request, e.requestBody = readRequest(t, file)
		readResponse(t, strings.TrimSuffix(file, ".request")+".response", e)
		e.secret = known[e.request.Header.Get(headerSensor)]
		all[e.name] = e
	}
	return all
}

func readRequest(t testing.TB, file string) (*http.Request, []byte) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(data)))
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	body, err := io.ReadAll(request.Body)
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return request, body
}

func readResponse(t testing.TB, file string, e *exchange) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(data)), e.request)
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	defer response.Body.Close()
	if e.responseBody, err = io.ReadAll(response.Body); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	e.response = response
}

func TestRecordedRequestsAreSignedAsOurs(t *testing.T) {
	for name, e := range recorded(t) {
		recordedMAC := e.request.Header.Get(headerAuth)
		if recordedMAC == "" || name == "auth_unknown_sensor" {
			continue // the registry, and a sensor that has no secret
		}
		stamp, err := strconv.ParseInt(e.request.Header.Get(headerTime), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		ours := http.Header{}
		sign(ours, e.request.Header.Get(headerSensor), e.secret, stamp, e.word(), e.requestBody)
		for _, header := range []string{headerType, headerSensor, headerTime} {
			if ours.Get(header) != e.request.Header.Get(header) {
				t.Errorf("%s: %s is %q, recorded %q", name, header, ours.Get(header), e.request.Header.Get(header))
			}
		}
		if same := ours.Get(headerAuth) == recordedMAC; same == (name == "auth_wrong_hmac") {
			t.Errorf("%s: MAC is %s, recorded %s", name, ours.Get(headerAuth), recordedMAC)
		}
	}
}

func TestRecordedAnswersAreJudged(t *testing.T) {
	want := map[string]Class{
		"auth_skew_61": ClassClock, "auth_wrong_hmac": ClassAuth, "auth_unknown_sensor": ClassRejected, "poll_stale_ts": ClassRejected,
		"events_batch_valbad": ClassRejected, "events_service_3": ClassServer, "events_broker_down": ClassServer,
		"firmware_unknown_id": ClassNotFound, "registry_v2_honeysens_svc1_manifests_amd64-1.0": ClassMAC,
	}
	for name, e := range recorded(t) {
		t.Run(name, func(t *testing.T) {
			c := New(Config{}, config.Settings{Sensor: config.Sensor{Secret: config.Secret(e.secret)}})
			stamp, _ := strconv.ParseInt(e.request.Header.Get(headerTime), 10, 64)
			r := request{op: "test", stamp: stamp}
			if e.word() == wordPost {
				r.body = e.requestBody
			}
			signed := e.responseBody
			if strings.HasPrefix(name, "firmware") {
				signed = nil
			}
			err := c.judge(c.ep.Load(), r, e.response, signed, e.responseBody)
			if got := ClassOf(err); got != want[name] || (err == nil) != (want[name] == "") {
				t.Errorf("class %q (%v), want %q", got, err, want[name])
			}
			if err != nil {
				return
			}
			tampered := append([]byte("x"), signed...)
			if err := c.judge(c.ep.Load(), r, e.response, tampered, tampered); ClassOf(err) != ClassMAC {
				t.Errorf("a changed answer: %v", err)
			}
		})
	}
}

func wantedOf(t *testing.T, name, arch string) *Wanted {
	t.Helper()
	w, err := decodeWanted(recorded(t)[name].responseBody, arch)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestRecordedPollsAreUnderstood(t *testing.T) {
	for name, e := range recorded(t) {
		if !strings.HasPrefix(name, "poll") || e.response.StatusCode != http.StatusOK {
			continue
		}
		w := wantedOf(t, name, "amd64")
		if len(w.Problems) > 0 || w.Interval.Minutes() != 5 || w.Services == nil || w.UnhandledEvents || len(w.Changes.Values) != len(settingsKeys) {
			t.Errorf("%s: %+v", name, w)
		}
	}
	if w := wantedOf(t, "poll_00_ok", "amd64"); w.Firmware != nil || len(w.Services) != 0 || w.Changes.ServerChain.Present || w.Changes.EAPOLCA.Present {
		t.Errorf("poll_00_ok: %+v", w)
	}
	want := &Firmware{Revision: "2.8.0", URI: "api/platforms/firmware/3/raw"}
	if got := wantedOf(t, "poll_with_firmware", "amd64").Firmware; !cmp.Equal(want, got) {
		t.Errorf("firmware %+v, want %+v", got, want)
	}
	if w := wantedOf(t, "poll_02_fp_wrong", "amd64"); !bytes.HasPrefix(w.Changes.ServerChain.PEM, []byte("-----BEGIN CERTIFICATE-----\n")) {
		t.Errorf("server's chain %q", w.Changes.ServerChain.PEM)
	}
}

func TestRecordedServices(t *testing.T) {
	tcp22 := []helperapi.Assignment{{Port: helperapi.Port{Protocol: helperapi.TCP, Number: 2222}, To: 22}}
	const noARM = `the server has this service for "armhf" only, and this sensor is amd64`
	want := map[string]Service{
		"1": {ID: "1", Label: "svc1", Image: "honeysens/svc1:amd64-1.0", Ports: tcp22},
		"2": {ID: "2", Label: "recon", Image: "honeysens/recon:amd64-1.0", Raw: true, CatchAll: true},
		"3": {ID: "3", Problem: noARM},
	}
	if diff := cmp.Diff(want, wantedOf(t, "poll_with_services", "amd64").Services); diff != "" {
		t.Errorf("services (-want +got):\n%s", diff)
	}
	empty := wantedOf(t, "poll_service_missing_revision", "amd64").Services
	if !strings.Contains(empty["1"].Problem, "no revision") || empty["2"].Problem != "" {
		t.Errorf("a service without revision: %+v", empty)
	}
	arm := wantedOf(t, "poll_with_services", "arm").Services["3"]
	if !strings.Contains(arm.Problem, `port assignment "{22: 2222}": not JSON`) || arm.Image == "" {
		t.Errorf("a port assignment that is not JSON: %+v", arm)
	}
}

// TestRecordedSettingsReachTheArchive takes a recorded answer over into the
// archive of the same sensor.
func TestRecordedSettingsReachTheArchive(t *testing.T) {
	for _, name := range []string{"static", "proxy-auth", "eap-tls"} {
		archive, _, err := config.Open("../config/testdata/dhcp.tar.gz")
		if err != nil {
			t.Fatal(err)
		}
		if changed, err := archive.Update(wantedOf(t, "poll_cfg_"+name, "amd64").Changes); !changed || err != nil {
			t.Errorf("%s: changed %v, %v", name, changed, err)
		}
		got, err := archive.Settings()
		if err != nil {
			t.Fatal(err)
		}
		own, _, err := config.Open("../config/testdata/" + name + ".tar.gz")
		if err != nil {
			t.Fatal(err)
		}
		want, err := own.Settings()
		if err != nil {
			t.Fatal(err)
		}
		opt := cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
		addr := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
		if diff := cmp.Diff([]any{want.Interface, want.Proxy, want.EAPOL}, []any{got.Interface, got.Proxy, got.EAPOL}, opt, addr); diff != "" {
			t.Errorf("%s (-archive +poll):\n%s", name, diff)
		}
	}
}

func TestStatusIsEncodedAsRecorded(t *testing.T) {
	e := recorded(t)["poll_with_services"]
	s := Status{State: StateRunning, IP: netip.MustParseAddr("192.0.2.10"), FreeMemory: 123456, DiskUsage: 1000, DiskTotal: 200000,
		Version: "0.1.0", Services: map[string]ServiceState{"svc1": ServiceRunning, "recon": ServiceScheduled}}
	ours, err := s.encode(1795473913)
	if err != nil {
		t.Fatal(err)
	}
	inner := func(body []byte) (fields map[string]any) {
		var outer struct{ Status string }
		if err := json.Unmarshal(body, &outer); err != nil {
			t.Fatal(err)
		}
		text, err := base64.StdEncoding.DecodeString(outer.Status)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &fields); err != nil {
			t.Fatal(err)
		}
		return fields
	}
	if diff := cmp.Diff(inner(e.requestBody), inner(ours)); diff != "" {
		t.Errorf("status (-recorded +ours):\n%s", diff)
	}
}

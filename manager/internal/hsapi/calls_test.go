package hsapi

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"honeysens.org/dockersensor/manager/internal/config"
)

func TestPostEvents(t *testing.T) {
	var body []byte
	_, c := newServer(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		body, _ = io.ReadAll(r.Body)
		signed(w, wordPost, http.StatusOK, nil)
	})
	list := []byte(`[{"timestamp":1}]`)
	if err := c.PostEvents(t.Context(), list); err != nil {
		t.Fatal(err)
	}
	if want := `{"events":"` + base64.StdEncoding.EncodeToString(list) + `"}`; string(body) != want {
		t.Errorf("body %s, want %s", body, want)
	}
}

func TestPostEventsTellsRejectionFromTrouble(t *testing.T) {
	for status, want := range map[int][2]bool{400: {true, false}, 500: {false, true}, 403: {false, false}} {
		_, c := newServer(t, Config{}, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
		var e *Error
		if err := c.PostEvents(t.Context(), []byte("[]")); !errors.As(err, &e) || e.Rejected() != want[0] || e.ServerFault() != want[1] || e.Status != status {
			t.Errorf("%d: %v", status, err)
		}
	}
}

// strictServer refuses what a HoneySens server refuses because of the time: of a
// request more than a minute off, of a status older than the last one.
type strictServer struct {
	ahead    time.Duration
	last     int64
	requests []string
}

func (s *strictServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	now := time.Now().Add(s.ahead)
	w.Header().Set("Date", now.UTC().Format(http.TimeFormat))
	body, _ := io.ReadAll(r.Body)
	stamp, err := strconv.ParseInt(r.Header.Get(headerTime), 10, 64)
	status := http.StatusOK
	switch skew := now.Unix() - stamp; {
	case err != nil || skew > 60 || skew < -60:
		status = http.StatusForbidden
	case r.Method == http.MethodGet:
		status = http.StatusNotFound
	case r.URL.Path == "/"+pollPath:
		status = s.judge(body, now)
	}
	s.requests = append(s.requests, fmt.Sprintf("%s %d", r.Method, status))
	if status == http.StatusForbidden || status == http.StatusBadRequest {
		w.WriteHeader(status)
		return
	}
	word, answer := wordPost, []byte(emptyAnswer)
	if r.Method == http.MethodGet {
		word, answer = wordGet, nil
	}
	text := strconv.FormatInt(now.Unix(), 10)
	w.Header().Set(headerTime, text)
	w.Header().Set(headerType, signType)
	w.Header().Set(headerAuth, hex.EncodeToString(mac(testSecret, text, word, answer)))
	w.WriteHeader(status)
	_, _ = w.Write(answer)
}

func (s *strictServer) judge(body []byte, now time.Time) int {
	var outer struct{ Status []byte }
	var inner struct{ Timestamp int64 }
	if json.Unmarshal(body, &outer) != nil || json.Unmarshal(outer.Status, &inner) != nil || inner.Timestamp < s.last || inner.Timestamp < now.Unix()-120 {
		return http.StatusBadRequest
	}
	s.last = inner.Timestamp
	return http.StatusOK
}

// TestServersClock: whatever this host's clock says, the first poll is taken
// already, and no status is from the server's future.
func TestServersClock(t *testing.T) {
	for _, ahead := range []time.Duration{-3 * time.Hour, -2 * time.Hour, -59 * time.Second, -time.Second, 0, time.Second, 59 * time.Second, 2 * time.Hour} {
		t.Run(ahead.String(), func(t *testing.T) {
			server := &strictServer{ahead: ahead}
			_, c := newServer(t, Config{}, server.ServeHTTP)
			for range 3 {
				if _, err := c.PostStatus(t.Context(), Status{}); err != nil {
					t.Fatal(err)
				}
				if future := server.last - time.Now().Add(ahead).Unix(); future > 0 {
					t.Errorf("a status from %d s in the future", future)
				}
			}
			if err := c.PostEvents(t.Context(), []byte("[]")); err != nil {
				t.Error(err)
			}
			if got := c.ClockOffset() - ahead; got.Abs() > 2*time.Second {
				t.Errorf("offset %v, want %v", c.ClockOffset(), ahead)
			}
			if len(server.requests) != 5 {
				t.Errorf("requests %q", server.requests)
			}
		})
	}
}

// TestServersClockChanges sets the server's clock while the sensor runs: after
// one refusal that tells so it goes on, and a status is never older than the
// last one.
func TestServersClockChanges(t *testing.T) {
	server := &strictServer{}
	_, c := newServer(t, Config{}, server.ServeHTTP)
	for _, ahead := range []time.Duration{0, 2 * time.Hour, 0, -2 * time.Hour} {
		server.ahead = ahead
		_, err := c.PostStatus(t.Context(), Status{})
		if err != nil && (ClassOf(err) != ClassClock || !strings.Contains(err.Error(), "differ by")) {
			t.Fatalf("at %s: %v", ahead, err)
		}
		if _, err = c.PostStatus(t.Context(), Status{}); err != nil {
			t.Errorf("at %s, after the refusal: %v", ahead, err)
		}
	}
	// Another client, without that memory, is told why it is refused.
	_, other := newServer(t, Config{}, server.ServeHTTP)
	if _, err := other.PostStatus(t.Context(), Status{}); ClassOf(err) != ClassRejected || !strings.Contains(err.Error(), "refuses its status") {
		t.Errorf("error %v", err)
	}
}

// TestClockIsThatOfOneServer: what one server's clock has led to is not sent to
// another one, and is kept when only the way changes.
func TestClockIsThatOfOneServer(t *testing.T) {
	ahead, right := &strictServer{ahead: 2 * time.Hour}, &strictServer{}
	first, c := newServer(t, Config{}, ahead.ServeHTTP)
	second := serveAs(t, first.leaf, right)
	proxy := newProxy(t, &testProxy{})
	poll := func(settings config.Settings) {
		t.Helper()
		c.Configure(settings)
		if _, err := c.PostStatus(t.Context(), Status{}); err != nil {
			t.Fatal(err)
		}
	}
	direct := first.settings(t, first.leaf.cert)
	poll(direct)
	through := direct
	through.Proxy = proxy.settings()
	poll(through)
	if want := []string{"GET 403", "POST 200", "POST 200"}; !slices.Equal(ahead.requests, want) {
		t.Errorf("requests %q, want %q", ahead.requests, want)
	}
	poll(second.settings(t, first.leaf.cert))
	if future := right.last - time.Now().Unix(); future > 0 {
		t.Errorf("a status from %d s in the future", future)
	}
}

func TestClock(t *testing.T) {
	local := time.Unix(1_000_000, 0)
	var c clock
	if got := c.stamp(local); got != 1_000_000 {
		t.Errorf("before any answer: %d", got)
	}
	c.took(1_000_000)
	c.learn(time.Unix(999_970, 0), local)
	if got := c.stamp(local.Add(10 * time.Second)); got != 1_000_000 {
		t.Errorf("a status went back to %d", got)
	}
	if got := c.stamp(local.Add(40 * time.Second)); got != 1_000_010 {
		t.Errorf("ahead of the server's clock: %d", got)
	}
	if got := c.offset(local.Add(time.Hour)); got != -30*time.Second {
		t.Errorf("offset %v", got)
	}
}

func TestConfigureChangesTheServer(t *testing.T) {
	answer := func(interval string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			signed(w, wordPost, 200, []byte(`{"services":{},"update_interval":`+interval+`}`))
		}
	}
	first, c := newServer(t, Config{}, answer("1"))
	second, _ := newServer(t, Config{}, answer("2"))
	for i, s := range []*testServer{first, second, first} {
		settings := s.settings(t, s.leaf.cert)
		c.Configure(settings)
		before := c.ep.Load()
		c.Configure(settings)
		if c.ep.Load() != before {
			t.Error("the same settings broke connections")
		}
		w, err := c.PostStatus(t.Context(), Status{})
		if err != nil || w.Interval != []time.Duration{time.Minute, 2 * time.Minute, time.Minute}[i] {
			t.Errorf("%d: %+v, %v", i, w, err)
		}
	}
}

// TestCertificateChangeOver goes through what a server does: it announces a new
// certificate, goes on with the old one, and then changes.
func TestCertificateChangeOver(t *testing.T) {
	oldCA, newCA := newCA(t), newCA(t)
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { signed(w, wordPost, 200, []byte(emptyAnswer)) })
	before := serveAs(t, issue(t, &oldCA, leafFor(testName)), handler)
	after := serveAs(t, issue(t, &newCA, leafFor(testName)), handler)
	c := New(Config{}, before.settings(t, before.leaf.cert, oldCA.cert))
	defer c.Close()
	both := func(s *testServer) config.Settings {
		settings := s.settings(t, after.leaf.cert, newCA.cert)
		settings.Server.Previous = []*x509.Certificate{before.leaf.cert, oldCA.cert}
		return settings
	}
	c.Configure(both(before))
	for _, s := range []*testServer{before, after} {
		c.Configure(both(s))
		w, err := c.PostStatus(t.Context(), Status{})
		if err != nil || w.Changes.Served != config.Fingerprint(s.leaf.cert) {
			t.Errorf("%+v, %v", w, err)
		}
	}
}

const firmwarePath = "api/platforms/firmware/3/raw"

func TestGetFirmware(t *testing.T) {
	archive := bytes.Repeat([]byte("0123456789"), 10_000)
	serve := func(ranges bool) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			signHeader(w.Header(), nil)
			if !ranges {
				r.Header.Del("Range")
			}
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(archive))
		}
	}
	for _, ranges := range []bool{true, false} {
		_, c := newServer(t, Config{}, serve(ranges))
		for _, offset := range []int64{0, 1, 50_000, 99_999} {
			var got bytes.Buffer
			size, err := c.GetFirmware(t.Context(), firmwarePath, offset, &got)
			if err != nil || size != int64(len(archive)) || !bytes.Equal(got.Bytes(), archive[offset:]) {
				t.Errorf("ranges %v, from %d: size %d, %d bytes, %v", ranges, offset, size, got.Len(), err)
			}
		}
	}
}

// signHeader signs a body for GET.
func signHeader(header http.Header, body []byte) {
	sign(header, "", testSecret, time.Now().Unix(), wordGet, body)
	header.Del(headerSensor)
}

func TestGetFirmwareThatGoesWrong(t *testing.T) {
	tests := []struct {
		name    string
		offset  int64
		handler http.HandlerFunc
		want    Class
		says    string
	}{
		{"not signed", 0, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "x") }, ClassMAC, ""},
		{"unknown", 0, func(w http.ResponseWriter, _ *http.Request) {
			signHeader(w.Header(), nil)
			w.WriteHeader(404)
		}, ClassNotFound, ""},
		{"empty", 0, func(w http.ResponseWriter, _ *http.Request) { signHeader(w.Header(), nil) }, ClassAnswer, "0 bytes"},
		{"size unknown", 0, func(w http.ResponseWriter, _ *http.Request) {
			signHeader(w.Header(), nil)
			fmt.Fprint(w, "x")
			_ = http.NewResponseController(w).Flush()
		}, ClassAnswer, "-1 bytes"},
		{"another part", 5, func(w http.ResponseWriter, _ *http.Request) {
			signHeader(w.Header(), nil)
			w.Header().Set("Content-Range", "bytes 0-9/10")
			w.WriteHeader(206)
		}, ClassAnswer, "the part from 5 on"},
		{"shrunk", 5, func(w http.ResponseWriter, _ *http.Request) {
			signHeader(w.Header(), nil)
			fmt.Fprint(w, "xx")
		}, ClassAnswer, "fewer than were fetched"},
		{"cut", 0, func(w http.ResponseWriter, _ *http.Request) {
			signHeader(w.Header(), nil)
			w.Header().Set("Content-Length", "10")
			fmt.Fprint(w, "x")
		}, ClassRoute, "ended before"},
		{"stalls", 0, func(w http.ResponseWriter, r *http.Request) {
			signHeader(w.Header(), nil)
			w.Header().Set("Content-Length", "10")
			fmt.Fprint(w, "x")
			_ = http.NewResponseController(w).Flush()
			hang(r)
		}, ClassRoute, "stalled"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, c := newServer(t, Config{Stall: 200 * time.Millisecond}, test.handler)
			_, err := c.GetFirmware(t.Context(), firmwarePath, test.offset, io.Discard)
			if ClassOf(err) != test.want || !strings.Contains(err.Error(), test.says) {
				t.Errorf("class %q, %v; want %q, %q", ClassOf(err), err, test.want, test.says)
			}
		})
	}
}

func TestGetFirmwareFromOtherPlacesIsRefused(t *testing.T) {
	_, c := newServer(t, Config{}, func(http.ResponseWriter, *http.Request) { t.Error("the server was asked") })
	for _, uri := range []string{"", "https://other.test/x", "//other.test/x", "api/platforms/firmware/../../x", "api/platforms/firmware/1/raw?x", "/api/platforms/firmware/1/raw"} {
		if _, err := c.GetFirmware(t.Context(), uri, 0, io.Discard); err == nil {
			t.Errorf("%q was fetched", uri)
		}
	}
}

// full is a disk without room.
type full struct{}

var errFull = errors.New("no space left")

func (full) Write([]byte) (int, error) { return 0, errFull }

func TestGetFirmwareTellsTheDiskFromTheServer(t *testing.T) {
	_, c := newServer(t, Config{}, func(w http.ResponseWriter, _ *http.Request) {
		signHeader(w.Header(), nil)
		fmt.Fprint(w, "firmware")
	})
	if _, err := c.GetFirmware(t.Context(), firmwarePath, 0, full{}); !errors.Is(err, errFull) || ClassOf(err) != "" {
		t.Errorf("error %v", err)
	}
}

func TestRegistryTransport(t *testing.T) {
	var seen *http.Request
	_, c := newServer(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		seen = r
		http.Redirect(w, r, "https://other.test/blob", http.StatusTemporaryRedirect)
	})
	roundTrip := func(method, url string) (status int, err error) {
		request, err := http.NewRequestWithContext(t.Context(), method, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := c.RegistryTransport().RoundTrip(request)
		if err != nil {
			return 0, err
		}
		defer response.Body.Close()
		if response.Request != request {
			t.Error("the answer is not to the request that was made")
		}
		return response.StatusCode, nil
	}
	if status, err := roundTrip(http.MethodGet, "https://"+c.Registry()+"/v2/"); err != nil || status != http.StatusTemporaryRedirect {
		t.Fatalf("%d, %v", status, err)
	}
	if seen.Host != c.Registry() || seen.URL.Path != "/v2/" || seen.Header.Get(headerAuth) != "" || seen.Header.Get("Accept-Encoding") != "identity" {
		t.Errorf("request for %s%s with %v", seen.Host, seen.URL, seen.Header)
	}
	for _, refused := range [][2]string{
		{http.MethodGet, "https://other.test/blob"}, {http.MethodGet, "http://" + c.Registry() + "/v2/"},
		{http.MethodPost, "https://" + c.Registry() + "/v2/"}, {http.MethodGet, "https://" + c.Address() + "/v2/"},
	} {
		if _, err := roundTrip(refused[0], refused[1]); err == nil {
			t.Errorf("%s was let through", refused)
		}
	}
	c.Configure(config.Settings{Server: config.Server{Host: "127.0.0.1", Name: testName, Port: 1}})
	if _, err := roundTrip(http.MethodGet, "https://"+c.Registry()+"/v2/"); ClassOf(err) != ClassRoute {
		t.Errorf("error %v", err)
	}
}

package doctor

import (
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"honeysens.org/dockersensor/manager/internal/config"
)

// answer is a server that says one thing only.
func answer(status int, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
	}
}

// serveTLS returns the settings of a sensor of that server.
func serveTLS(t *testing.T, handler http.Handler) config.Settings {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	address := netip.MustParseAddrPort(server.Listener.Addr().String())
	return config.Settings{
		Server: config.Server{Host: address.Addr().String(), Port: address.Port(), Name: "example.com", Chain: []*x509.Certificate{server.Certificate()}},
		Sensor: config.Sensor{ID: "1", Secret: "secret"},
	}
}

// closedPort is one at which nobody listens.
func closedPort(t *testing.T) uint16 {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return netip.MustParseAddrPort(listener.Addr().String()).Port()
}

func TestAskServer(t *testing.T) {
	name, route := want{"server name", OK, ""}, want{"server route", OK, ""}
	cert, clock, access := want{"server certificate", OK, ""}, want{"clock", OK, ""}, want{"server access", OK, ""}
	late := time.Now().Add(2 * time.Hour).UTC().Format(http.TimeFormat)
	tests := []struct {
		name    string
		handler http.HandlerFunc
		change  func(*config.Settings)
		wants   []want
	}{
		{"good", answer(http.StatusNotFound), nil, []want{name, route, cert, clock, access, {"server answer", OK, ""}, {"server", OK, "direct"}}},
		{"nobody there", answer(http.StatusNotFound), func(s *config.Settings) { s.Server.Port = closedPort(t) },
			[]want{name, {"server route", Problem, "refused"}}},
		{"not trusted", answer(http.StatusNotFound), func(s *config.Settings) { s.Server.Chain = nil },
			[]want{name, route, {"server certificate", Problem, "download the sensor's configuration again"}}},
		{"another name", answer(http.StatusNotFound), func(s *config.Settings) { s.Server.Name = "hs.example.test" },
			[]want{name, route, {"server certificate", Problem, "name hs.example.test"}}},
		{"clocks differ", answer(http.StatusForbidden, "Date", late), nil, []want{name, route, {"clock", Problem, "set this host's clock"}}},
		{"wrong secret", answer(http.StatusForbidden), nil, []want{name, route, cert, {"server access", Problem, "secret has changed"}}},
		{"unknown sensor", answer(http.StatusBadRequest), nil, []want{name, route, cert, {"server access", Problem, "still exists"}}},
		{"broken", answer(http.StatusBadGateway), nil, []want{name, route, cert, {"server answer", Problem, "502"}}},
		{"another server", answer(http.StatusFound, "Location", "/login"), nil, []want{name, route, cert, {"server answer", Problem, "/login"}}},
		{"proxy away", answer(http.StatusNotFound), func(s *config.Settings) { s.Proxy = &config.Proxy{Host: "127.0.0.1", Port: closedPort(t)} },
			[]want{{"proxy", Problem, "check the proxy"}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			settings := serveTLS(t, test.handler)
			if test.change != nil {
				test.change(&settings)
			}
			d := alone(Config{})
			d.settings = &settings
			d.examineServer(t.Context())
			expect(t, d.findings, test.wants...)
		})
	}
}

// TestServerIsAskedWithoutTraces: a poll or an event would change the server.
func TestServerIsAskedWithoutTraces(t *testing.T) {
	asked := make(chan string, 10)
	settings := serveTLS(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Method + " " + r.URL.Path
		w.WriteHeader(http.StatusNotFound)
	}))
	d := alone(Config{})
	d.settings = &settings
	d.examineServer(t.Context())
	if got := <-asked; got != "GET /api/platforms/firmware/2147483647/raw" || len(asked) > 0 {
		t.Errorf("asked for %s, and %d times more", got, len(asked))
	}
}

func TestServerThatIsSilent(t *testing.T) {
	settings := serveTLS(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		// Whoever returns here answers, and the client may still be reading.
		panic(http.ErrAbortHandler)
	}))
	d := alone(Config{Patience: 50 * time.Millisecond})
	d.settings = &settings
	d.examineServer(t.Context())
	expect(t, d.findings, want{"server name", OK, ""}, want{"server route", Problem, "no answer in time"})
}

func TestRunningManagersServer(t *testing.T) {
	tests := []struct {
		name   string
		server Server
		wants  []want
	}{
		{"good", Server{Address: "192.0.2.9:443", Name: "hs", Route: "direct", LastPoll: time.Now()}, []want{{"server", OK, "192.0.2.9:443 (hs) took a poll 0s ago, direct"}}},
		{"not yet", Server{Address: "192.0.2.9:443"}, []want{{"server", Note, "no poll of 192.0.2.9:443"}}},
		{"clock", Server{LastPoll: time.Now(), ClockOffset: -2 * time.Hour}, []want{{"server", OK, ""}, {"clock", Note, "-2h0m0s"}}},
		{"name", Server{Error: "poll: the name cannot be resolved; check", Class: "name"}, []want{{"server name", Problem, "cannot be resolved; check"}}},
		{"secret", Server{Error: "poll: refused", Class: "auth"},
			[]want{{"server name", OK, ""}, {"server route", OK, ""}, {"server certificate", OK, ""}, {"server access", Problem, "refused"}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d := alone(Config{})
			d.running = &Running{Server: test.server}
			d.examineServer(t.Context())
			expect(t, d.findings, test.wants...)
		})
	}
}

func TestRefusedSettings(t *testing.T) {
	d := alone(Config{})
	d.running = &Running{Server: Server{LastPoll: time.Now()}, RefusedChange: "gateway: no answer"}
	d.examineServer(t.Context())
	expect(t, d.findings, want{"server", OK, ""}, want{"settings", Note, "in force: gateway: no answer"})
}

func TestServicesAreUnknownBeforeThePoll(t *testing.T) {
	d := alone(Config{})
	d.running = &Running{}
	d.examineServices(t.Context())
	expect(t, d.findings)
	d.running.Server.LastPoll = time.Now()
	d.examineServices(t.Context())
	expect(t, d.findings, want{"services", Note, "none is assigned"})
}

func TestServicesAndEvents(t *testing.T) {
	d := alone(Config{})
	d.running = &Running{
		Services: []Service{
			{ID: "1", Label: "cowrie", State: "running"}, {ID: "2", Label: "dionaea", State: "error", Reason: "no such image"},
			{ID: "3", Label: "recon", State: "scheduled", Reason: "image is fetched"},
		},
		CollectorError: "address in use",
		Events:         Events{Waiting: 5, Quarantined: 2, Lost: 7, Error: "disk full"},
	}
	d.examineServices(t.Context())
	d.examineEvents(t.Context())
	expect(t, d.findings,
		want{"services", OK, "1 of 3"}, want{"services", Problem, "2 dionaea: no such image"}, want{"services", Note, "image is fetched"},
		want{"collector", Problem, "address in use"}, want{"events", Problem, "5 wait: disk full"},
		want{"events", Note, "2 are in quarantine"}, want{"events", Note, "7 were lost"})
}

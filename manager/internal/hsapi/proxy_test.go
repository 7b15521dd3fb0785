package hsapi

import (
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"honeysens.org/dockersensor/manager/internal/config"
)

// testProxy knows CONNECT and one user.
type testProxy struct {
	*httptest.Server
	user, password string
	status         int // when not 0, the answer to everything

	mu     sync.Mutex
	seen   []string
	closed bool
	wg     sync.WaitGroup
}

func newProxy(t *testing.T, p *testProxy) *testProxy {
	t.Helper()
	p.Server = httptest.NewServer(p)
	t.Cleanup(func() {
		p.Close()
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
		p.wg.Wait()
	})
	return p
}

func (p *testProxy) settings() *config.Proxy {
	address := netip.MustParseAddrPort(p.Listener.Addr().String())
	return &config.Proxy{Host: address.Addr().String(), Port: address.Port()}
}

func (p *testProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.seen = append(p.seen, r.Method+" "+r.Host)
	closed := p.closed
	if !closed {
		p.wg.Add(1)
	}
	p.mu.Unlock()
	if closed {
		return
	}
	defer p.wg.Done()
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte(p.user+":"+p.password))
	switch {
	case p.status != 0:
		w.WriteHeader(p.status)
	case p.user != "" && r.Header.Get("Proxy-Authorization") != want:
		w.Header().Set("Proxy-Authenticate", "Basic realm=x")
		w.WriteHeader(http.StatusProxyAuthRequired)
	default:
		p.connect(w, r)
	}
}

func (p *testProxy) connect(w http.ResponseWriter, r *http.Request) {
	server, err := (&net.Dialer{}).DialContext(r.Context(), "tcp", r.Host)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	w.WriteHeader(http.StatusOK)
	client, early, err := http.NewResponseController(w).Hijack()
	if err != nil {
		server.Close()
		return
	}
	pass := func(to io.Writer, from io.Reader) {
		_, _ = io.Copy(to, from)
		server.Close()
		client.Close()
	}
	// The server has read the first byte already, maybe.
	p.wg.Go(func() { pass(server, early) })
	pass(client, server)
}

func TestProxy(t *testing.T) {
	const password = "p:@ w=d;#x%ü"
	tests := []struct {
		name           string
		proxy          testProxy
		user, password string
		want           Class
		says           string
	}{
		{"open", testProxy{}, "", "", "", ""},
		{"user", testProxy{user: "u ser", password: password}, "u ser", password, "", ""},
		{"wrong password", testProxy{user: "u", password: "right"}, "u", "wrong", ClassProxy, "check proxy user and password"},
		{"no user", testProxy{user: "u", password: "right"}, "", "", ClassProxy, "wants a user and a password"},
		{"forbids", testProxy{status: 403}, "", "", ClassProxy, "allow CONNECT to"},
		{"server away", testProxy{status: 502}, "", "", ClassProxy, "proxy itself reaches"},
	}
	for i := range tests {
		test := &tests[i]
		t.Run(test.name, func(t *testing.T) {
			s, _ := newServer(t, Config{}, func(w http.ResponseWriter, _ *http.Request) { signed(w, wordPost, 200, []byte(emptyAnswer)) })
			proxy := newProxy(t, &test.proxy)
			settings := s.settings(t, s.leaf.cert)
			settings.Proxy = proxy.settings()
			settings.Proxy.User, settings.Proxy.Password = test.user, config.Secret(test.password)
			c := New(Config{}, settings)
			defer c.Close()
			_, err := c.PostStatus(t.Context(), Status{})
			if ClassOf(err) != test.want || (err != nil && !strings.Contains(err.Error(), test.says)) {
				t.Errorf("class %q, %v; want %q, %q", ClassOf(err), err, test.want, test.says)
			}
			if err != nil && test.password != "" && strings.Contains(err.Error(), test.password) {
				t.Errorf("the password shows: %v", err)
			}
			// The proxy may not know the name: it is asked for the address.
			proxy.mu.Lock()
			defer proxy.mu.Unlock()
			if len(proxy.seen) == 0 || proxy.seen[0] != "CONNECT "+c.Address() {
				t.Errorf("the proxy saw %q", proxy.seen)
			}
		})
	}
}

func TestProxyThatIsAway(t *testing.T) {
	s, c := newServer(t, Config{}, func(w http.ResponseWriter, _ *http.Request) { signed(w, wordPost, 200, []byte(emptyAnswer)) })
	settings := s.settings(t, s.leaf.cert)
	settings.Proxy = &config.Proxy{Host: "127.0.0.1", Port: 1}
	c.Configure(settings)
	if _, err := c.PostStatus(t.Context(), Status{}); ClassOf(err) != ClassProxy || c.Route() != "127.0.0.1:1" {
		t.Errorf("error %v, route %s", err, c.Route())
	}
	settings.Proxy = nil
	c.Configure(settings)
	if _, err := c.PostStatus(t.Context(), Status{}); err != nil || c.Route() != "direct" {
		t.Errorf("without the proxy: %v, route %s", err, c.Route())
	}
}

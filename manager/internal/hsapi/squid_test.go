package hsapi

import (
	"net/http"
	"strings"
	"testing"

	"honeysens.org/dockersensor/manager/internal/config"
	"honeysens.org/dockersensor/manager/internal/hsapi/squidtest"
)

// TestNetnsSquid leads polls through a real squid, to a server whose certificate
// only the configuration trusts. Two connections are needed: what a proxy asked
// for once is right from the start with the second one.
func TestNetnsSquid(t *testing.T) {
	tests := []struct {
		name           string
		auth           squidtest.Auth
		user, password string
		// as is the user that the proxy sees.
		as   string
		want Class
		says string
	}{
		{name: "open", auth: squidtest.Open, as: "- 200"},
		{name: "open, with a user", auth: squidtest.Open, user: "u", password: "p", as: "- 200"},
		{name: "basic", auth: squidtest.Basic, user: squidtest.User, password: squidtest.Password, as: squidtest.User + " 200"},
		{name: "basic, wrong password", auth: squidtest.Basic, user: squidtest.User, password: "wrong", want: ClassProxy, says: "does not accept user and password"},
		{name: "basic, nobody", auth: squidtest.Basic, want: ClassProxy, says: "wants a user and a password"},
		{name: "NTLM", auth: squidtest.NTLM, user: "sensor", password: "secret ü", as: "sensor 200"},
		{name: "NTLM, with domain", auth: squidtest.NTLM, user: `OFFICE\sensor`, password: "secret", as: `OFFICE\sensor 200`},
		{name: "NTLM, as a mail address", auth: squidtest.NTLM, user: "sensor@office.test", password: "secret", as: "sensor@office.test 200"},
		{name: "NTLM, nobody", auth: squidtest.NTLM, want: ClassProxy, says: "wants a user and a password"},
		{name: "NTLM before Basic", auth: squidtest.NTLM | squidtest.Basic, user: `OFFICE\sensor`, password: "not that of Basic", as: `OFFICE\sensor 200`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s, c := newServer(t, Config{}, func(w http.ResponseWriter, _ *http.Request) { signed(w, wordPost, 200, []byte(emptyAnswer)) })
			squid := squidtest.Start(t, test.auth)
			settings := s.settings(t, s.leaf.cert)
			settings.Proxy = &config.Proxy{Host: squid.Host, Port: squid.Port, User: test.user, Password: config.Secret(test.password)}
			c.Configure(settings)
			for range 2 {
				c.Close()
				_, err := c.PostStatus(t.Context(), Status{})
				if ClassOf(err) != test.want || (err != nil && !strings.Contains(err.Error(), test.says)) {
					t.Errorf("class %q, %v; want %q, %q", ClassOf(err), err, test.want, test.says)
				}
				if err != nil && test.password != "" && strings.Contains(err.Error(), test.password) {
					t.Errorf("the password shows: %v", err)
				}
			}
			c.Close()
			if test.want == "" {
				squid.WantSeen(t, 2, "CONNECT "+c.Address()+" "+test.as)
			}
		})
	}
}

// TestNetnsSquidTrust puts a server with a foreign certificate behind the proxy.
func TestNetnsSquidTrust(t *testing.T) {
	s, c := newServer(t, Config{}, func(http.ResponseWriter, *http.Request) { t.Error("a request got through") })
	squid := squidtest.Start(t, squidtest.NTLM)
	settings := s.settings(t, newCA(t).cert)
	settings.Proxy = &config.Proxy{Host: squid.Host, Port: squid.Port, User: "sensor", Password: "secret"}
	c.Configure(settings)
	if _, err := c.PostStatus(t.Context(), Status{}); ClassOf(err) != ClassTLS {
		t.Errorf("error %v", err)
	}
}

// TestNetnsSquidBeforeNothing has the proxy lead to where nobody listens.
func TestNetnsSquidBeforeNothing(t *testing.T) {
	s, c := newServer(t, Config{}, func(http.ResponseWriter, *http.Request) {})
	squid := squidtest.Start(t, squidtest.Open)
	settings := s.settings(t, s.leaf.cert)
	settings.Proxy = &config.Proxy{Host: squid.Host, Port: squid.Port}
	settings.Server.Port = 1
	c.Configure(settings)
	if _, err := c.PostStatus(t.Context(), Status{}); ClassOf(err) != ClassProxy || !strings.Contains(err.Error(), "check that the proxy itself reaches") {
		t.Errorf("error %v", err)
	}
}

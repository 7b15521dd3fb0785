package hsapi

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestTrust(t *testing.T) {
	ca, stranger := newCA(t), newCA(t)
	good := issue(t, &ca, leafFor(testName))
	alone := issue(t, nil, leafFor(testName))
	early := leafFor(testName)
	early.NotBefore, early.NotAfter = time.Now().Add(time.Hour), time.Now().Add(2*time.Hour)
	late := leafFor(testName)
	late.NotBefore, late.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	tests := []struct {
		name  string
		leaf  authority
		trust []*x509.Certificate
		want  Class
		says  string
	}{
		{"by its authority", good, []*x509.Certificate{good.cert, ca.cert}, "", ""},
		{"by its authority, another leaf", issue(t, &ca, leafFor(testName)), []*x509.Certificate{good.cert, ca.cert}, "", ""},
		{"self-signed alone", alone, []*x509.Certificate{alone.cert}, "", ""},
		{"leaf without its authority", good, []*x509.Certificate{good.cert}, "", ""},
		{"change-over", good, []*x509.Certificate{alone.cert, good.cert, ca.cert}, "", ""},
		{"stranger", issue(t, &stranger, leafFor(testName)), []*x509.Certificate{good.cert, ca.cert}, ClassTLS, "not the one that the configuration archive trusts"},
		{"another self-signed", issue(t, nil, leafFor(testName)), []*x509.Certificate{alone.cert}, ClassTLS, "trusts"},
		{"no trust at all", good, nil, ClassTLS, "trusts"},
		{"another name", issue(t, &ca, leafFor("other.test")), []*x509.Certificate{ca.cert}, ClassTLS, "not for the name hs.example.test"},
		{"ended", issue(t, &ca, late), []*x509.Certificate{ca.cert}, ClassTLS, "has ended at"},
		{"not begun", issue(t, &ca, early), []*x509.Certificate{ca.cert}, ClassClock, "this host's clock says"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := serveAs(t, test.leaf, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				signed(w, wordPost, 200, []byte(emptyAnswer))
			}))
			c := New(Config{}, s.settings(t, test.trust...))
			defer c.Close()
			_, err := c.PostStatus(t.Context(), Status{})
			if ClassOf(err) != test.want || (err != nil && !strings.Contains(err.Error(), test.says)) {
				t.Errorf("class %q, %v; want %q, %q", ClassOf(err), err, test.want, test.says)
			}
		})
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	s, c := newServer(t, Config{}, func(w http.ResponseWriter, _ *http.Request) { signed(w, wordPost, 200, []byte(emptyAnswer)) })
	s.TLS.MinVersion, s.TLS.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	if _, err := c.PostStatus(t.Context(), Status{}); ClassOf(err) != ClassTLS {
		t.Errorf("error %v", err)
	}
}

func TestUnreachable(t *testing.T) {
	s, _ := newServer(t, Config{}, func(http.ResponseWriter, *http.Request) {})
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	mute := muteServer(t)
	tests := []struct {
		name    string
		host    string
		address net.Addr
		want    Class
	}{
		{"closed port", "127.0.0.1", closed.Addr(), ClassRoute},
		{"unknown name", "no-such-host.invalid", closed.Addr(), ClassName},
		{"plain HTTP", "127.0.0.1", plain.Listener.Addr(), ClassTLS},
		{"no TLS", "127.0.0.1", mute, ClassTLS},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			settings := s.settings(t, s.leaf.cert)
			settings.Server.Host, settings.Server.Port = test.host, netip.MustParseAddrPort(test.address.String()).Port()
			_, err := New(Config{Timeout: 5 * time.Second}, settings).PostStatus(t.Context(), Status{})
			if ClassOf(err) != test.want {
				t.Errorf("class %q, %v; want %q", ClassOf(err), err, test.want)
			}
		})
	}
}

// muteServer speaks something else than TLS.
func muteServer(t *testing.T) net.Addr {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(conn, "SSH-2.0-OpenSSH_9.2\r\n")
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		listener.Close()
		<-done
	})
	return listener.Addr()
}

// TestServersAddress reaches a server by whatever the settings call it, under
// the name of its certificate.
func TestServersAddress(t *testing.T) {
	ca := newCA(t)
	leaf := issue(t, &ca, leafFor(testName))
	for _, at := range []struct{ listen, host string }{{"127.0.0.1", "127.0.0.1"}, {"::1", "::1"}, {"127.0.0.1", "localhost"}} {
		t.Run(at.host, func(t *testing.T) {
			var host, sni string
			s := &testServer{leaf: leaf, Server: httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				host, sni = r.Host, r.TLS.ServerName
				signed(w, wordPost, 200, []byte(emptyAnswer))
			}))}
			listener, err := net.Listen("tcp", net.JoinHostPort(at.listen, "0"))
			if err != nil {
				t.Fatal(err)
			}
			s.Listener.Close()
			s.Listener = listener
			s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{leaf.cert.Raw}, PrivateKey: leaf.key}}, MinVersion: tls.VersionTLS12}
			s.StartTLS()
			defer s.Close()
			settings := s.settings(t, ca.cert)
			settings.Server.Host = at.host
			c := New(Config{}, settings)
			defer c.Close()
			port := strconv.Itoa(int(settings.Server.Port))
			if _, err := c.PostStatus(t.Context(), Status{}); err != nil || host != net.JoinHostPort(testName, port) || sni != testName {
				t.Errorf("%v, host %s, name %s", err, host, sni)
			}
			if c.Address() != net.JoinHostPort(at.host, port) {
				t.Errorf("address %s", c.Address())
			}
		})
	}
}

package hsapi

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"honeysens.org/dockersensor/manager/internal/config"
)

const (
	testSecret = "409c5176c25d4686b63bf9d37b1e8b097ab6009d2b4817cdfb57de166f375d3e"
	testName   = "hs.example.test"
)

// authority signs servers' certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// issue makes a certificate; without an authority it signs itself.
func issue(t *testing.T, by *authority, template x509.Certificate) authority {
	t.Helper()
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	if template.NotAfter.IsZero() {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	own := authority{key: newKey(t)}
	parent, key := &template, own.key
	if by != nil {
		parent, key = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, parent, &own.key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	if own.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return own
}

func newCA(t *testing.T) authority {
	return issue(t, nil, x509.Certificate{Subject: pkix.Name{CommonName: "HoneySens"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
}

func leafFor(name string) x509.Certificate {
	return x509.Certificate{Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}}
}

// testServer is a TLS server with a certificate of its own choice.
type testServer struct {
	*httptest.Server
	leaf authority
}

func serveAs(t *testing.T, leaf authority, handler http.Handler) *testServer {
	t.Helper()
	s := &testServer{Server: httptest.NewUnstartedServer(handler), leaf: leaf}
	s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{leaf.cert.Raw}, PrivateKey: leaf.key}}, MinVersion: tls.VersionTLS12}
	// What the server says of refused handshakes is no news.
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// settings are those of a sensor of the server.
func (s *testServer) settings(t *testing.T, trust ...*x509.Certificate) config.Settings {
	t.Helper()
	address := netip.MustParseAddrPort(s.Listener.Addr().String())
	return config.Settings{
		Server: config.Server{Host: address.Addr().String(), Port: address.Port(), Name: testName, Chain: trust},
		Sensor: config.Sensor{ID: "1", Secret: testSecret},
	}
}

// newServer starts a server with a good certificate, and a client of it.
func newServer(t *testing.T, cfg Config, handler http.HandlerFunc) (*testServer, *Client) {
	t.Helper()
	ca := newCA(t)
	s := serveAs(t, issue(t, &ca, leafFor(testName)), handler)
	c := New(cfg, s.settings(t, s.leaf.cert, ca.cert))
	t.Cleanup(c.Close)
	return s, c
}

// signed answers as the server does.
func signed(w http.ResponseWriter, word string, status int, body []byte) {
	signedOver(w, word, status, body, body)
}

func signedOver(w http.ResponseWriter, word string, status int, body, over []byte) {
	stamp := strconv.FormatInt(time.Now().Unix(), 10)
	w.Header().Set("x-hs-ts", stamp)
	w.Header().Set("x-hs-type", "sha256")
	w.Header().Set("x-hs-auth", hex.EncodeToString(mac(testSecret, stamp, word, over)))
	w.Header().Set("Content-Type", "text/html; charset=UTF-8")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

const emptyAnswer = `{"services":{},"update_interval":"5"}`

func TestPollIsSignedBothWays(t *testing.T) {
	var seen *http.Request
	var body []byte
	server, c := newServer(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		seen = r
		body, _ = io.ReadAll(r.Body)
		http.SetCookie(w, &http.Cookie{Name: "PHPSESSID", Value: "x"})
		signed(w, wordPost, http.StatusOK, []byte(emptyAnswer))
	})
	for range 2 {
		w, err := c.PostStatus(t.Context(), Status{State: StateRunning})
		if err != nil {
			t.Fatal(err)
		}
		if w.Interval != 5*time.Minute || w.Changes.Served != config.Fingerprint(server.leaf.cert) {
			t.Errorf("wanted %+v", w)
		}
	}
	stamp := seen.Header.Get(headerTime)
	if got, want := seen.Header.Get(headerAuth), hex.EncodeToString(mac(testSecret, stamp, "create", body)); got != want {
		t.Errorf("MAC %s, want %s", got, want)
	}
	if seen.ProtoMajor != 1 || seen.Method != http.MethodPost || seen.URL.Path != "/api/sensors/status" || seen.Header.Get("Cookie") != "" {
		t.Errorf("request %s %s %s, cookies %q", seen.Proto, seen.Method, seen.URL, seen.Header.Get("Cookie"))
	}
	_, port, _ := net.SplitHostPort(c.Address())
	if seen.Host != net.JoinHostPort(testName, port) {
		t.Errorf("host %s", seen.Host)
	}
	var outer struct{ Status string }
	var inner struct{ Timestamp int64 }
	text, err := base64.StdEncoding.DecodeString(unmarshal(t, body, &outer).Status)
	if err != nil {
		t.Fatal(err)
	}
	if got := strconv.FormatInt(unmarshal(t, text, &inner).Timestamp, 10); got != stamp {
		t.Errorf("status says %s, header %s", got, stamp)
	}
}

func unmarshal[T any](t *testing.T, data []byte, to *T) *T {
	t.Helper()
	if err := json.Unmarshal(data, to); err != nil {
		t.Fatal(err)
	}
	return to
}

func TestGzippedAnswerIsVerifiedUnpacked(t *testing.T) {
	_, c := newServer(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		var packed bytes.Buffer
		zip := gzip.NewWriter(&packed)
		fmt.Fprint(zip, emptyAnswer)
		zip.Close()
		w.Header().Set("Content-Encoding", r.Header.Get("Accept-Encoding"))
		signedOver(w, wordPost, http.StatusOK, packed.Bytes(), []byte(emptyAnswer))
	})
	if _, err := c.PostStatus(t.Context(), Status{}); err != nil {
		t.Error(err)
	}
}

func TestBadAnswers(t *testing.T) {
	huge := func(w http.ResponseWriter, _ *http.Request) {
		chunk := bytes.Repeat([]byte(" "), 1<<20)
		for range 100 {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	}
	status := func(code int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(code)
			fmt.Fprint(w, body)
		}
	}
	tests := []struct {
		name    string
		handler http.HandlerFunc
		want    Class
		says    string
	}{
		{"no MAC", status(200, emptyAnswer), ClassMAC, "not signed"},
		{"MAC of a request", func(w http.ResponseWriter, _ *http.Request) { signed(w, wordGet, 200, []byte(emptyAnswer)) }, ClassMAC, ""},
		{"MAC over something else", func(w http.ResponseWriter, _ *http.Request) {
			signedOver(w, wordPost, 200, []byte(emptyAnswer), []byte("{}"))
		}, ClassMAC, ""},
		{"MAC that is not hex", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(headerAuth, "zz")
			fmt.Fprint(w, emptyAnswer)
		}, ClassMAC, ""},
		{"web page", status(200, " <!DOCTYPE html><html>Welcome"), ClassAnswer, "web page"},
		{"signed, not JSON", func(w http.ResponseWriter, _ *http.Request) { signed(w, wordPost, 200, []byte("hello")) }, ClassAnswer, "not JSON"},
		{"signed, no services", func(w http.ResponseWriter, _ *http.Request) { signed(w, wordPost, 200, []byte("{}")) }, ClassAnswer, "no services"},
		{"redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://other.test/", http.StatusMovedPermanently)
		}, ClassAnswer, `redirects to "https://other.test/"`},
		{"not installed", status(303, ""), ClassAnswer, "redirects"},
		{"100 MB", huge, ClassAnswer, "more than 4 MB"},
		{"gzip bomb", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			zip := gzip.NewWriter(w)
			huge(unpacked{w, zip}, r)
		}, ClassAnswer, "more than 4 MB"},
		{"hangs", func(_ http.ResponseWriter, r *http.Request) { hang(r) }, ClassRoute, "no answer in time"},
		{"hangs in the answer", func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, "{")
			_ = http.NewResponseController(w).Flush()
			hang(r)
		}, ClassRoute, "no answer in time"},
		{"nothing", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, ClassRoute, "ended before"},
		{"cut", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, "{")
		}, ClassRoute, "ended before"},
		{"endless headers", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 100<<10))
			fmt.Fprint(w, "{}")
		}, ClassAnswer, "not HTTP"},
		{"unknown sensor", status(400, `{"code":0}`), ClassUnknown, "does not know this sensor"},
		{"wrong secret", status(403, `{"code":0}`), ClassAuth, "its secret has changed"},
		{"not found", status(404, ""), ClassNotFound, ""},
		{"out of memory", status(500, ""), ClassServer, "500"},
		{"broker down", status(500, `{"error":"Connection refused"}`), ClassServer, "Connection refused"},
		{"teapot", status(418, ""), ClassAnswer, "418"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			timeout := 20 * time.Second
			if test.says == "no answer in time" {
				timeout = 200 * time.Millisecond
			}
			_, c := newServer(t, Config{Timeout: timeout}, test.handler)
			w, err := c.PostStatus(t.Context(), Status{})
			if ClassOf(err) != test.want || w != nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("class %q, %v; want %q, %q", ClassOf(err), err, test.want, test.says)
			}
			if err != nil && strings.Contains(err.Error(), testSecret) {
				t.Errorf("the secret shows: %v", err)
			}
		})
	}
}

// hang waits for the client to go away. A server notices that only once it has
// read the request, and would answer by its return, which the client may still read.
func hang(r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
	panic(http.ErrAbortHandler)
}

// unpacked is a response that is written through a packer.
type unpacked struct {
	http.ResponseWriter
	to io.Writer
}

func (u unpacked) Write(p []byte) (int, error) { return u.to.Write(p) }

func TestTheCallersEndIsNoErrorOfTheServer(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	_, c := newServer(t, Config{}, func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		hang(r)
	})
	if _, err := c.PostStatus(ctx, Status{}); !errors.Is(err, context.Canceled) || ClassOf(err) != "" {
		t.Errorf("error %v, class %q", err, ClassOf(err))
	}
}

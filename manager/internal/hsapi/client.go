package hsapi

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"honeysens.org/dockersensor/manager/internal/config"
)

// maxAnswer bounds an answer after decompression. A real one has 1 to 6 KB.
const maxAnswer = 4 << 20

// Config adjusts a client. The zero value is right for a sensor.
type Config struct {
	// Timeout is for a whole poll or upload: one minute when 0.
	Timeout time.Duration
	// Stall is how long a download may bring nothing: one minute when 0.
	Stall time.Duration
	// Arch is the architecture whose services are wanted, as in GOARCH: that
	// of this program when "".
	Arch string
	// Now is time.Now when nil.
	Now func() time.Time
}

// Client talks to one server as one sensor. It is safe for concurrent use.
type Client struct {
	cfg Config
	ep  atomic.Pointer[endpoint]
}

// target is all that a connection depends on. It can be compared.
type target struct {
	id, secret, host, name, trust string
	port                          uint16
	proxied                       bool
	proxy                         config.Proxy
}

// sameServer tells whether another target is the same sensor of the same server.
func (t target) sameServer(other target) bool {
	return t.id == other.id && t.secret == other.secret && t.host == other.host && t.port == other.port
}

// endpoint is a server and the way there.
type endpoint struct {
	target
	// address is what is connected to, and vhost what the server is called in
	// requests: both with the port, that one only where it is not 443.
	address, vhost string
	// route is the proxy's address, or "direct".
	route     string
	transport *http.Transport
	// clock is the server's, which another way to it does not change.
	clock *clock
}

// New returns a client for the server of the settings.
func New(cfg Config, settings config.Settings) *Client {
	if cfg.Timeout == 0 {
		cfg.Timeout = time.Minute
	}
	if cfg.Stall == 0 {
		cfg.Stall = time.Minute
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	c := &Client{cfg: cfg}
	c.Configure(settings)
	return c
}

// Configure changes to other settings. Requests under way end with the old ones.
// All certificates of settings.Server.Trust are accepted, so that a server that
// announces a new one is trusted with both.
func (c *Client) Configure(settings config.Settings) {
	next := newTarget(settings)
	old := c.ep.Load()
	if old != nil && old.target == next {
		return
	}
	ep := c.newEndpoint(next, settings.Server.Trust())
	if old != nil && old.sameServer(next) {
		ep.clock = old.clock
	}
	if old := c.ep.Swap(ep); old != nil {
		old.transport.CloseIdleConnections()
	}
}

// Close ends idle connections.
func (c *Client) Close() { c.ep.Load().transport.CloseIdleConnections() }

// Address is host and port that the client connects to.
func (c *Client) Address() string { return c.ep.Load().address }

// Route is the address of the proxy, or "direct".
func (c *Client) Route() string { return c.ep.Load().route }

func (c *Client) clock() *clock { return c.ep.Load().clock }

// ClockOffset is the server's clock minus this host's, as the newest answer
// told; 0 before the first one.
func (c *Client) ClockOffset() time.Duration { return c.clock().offset(c.cfg.Now()) }

func newTarget(s config.Settings) target {
	t := target{id: s.Sensor.ID, secret: string(s.Sensor.Secret), host: s.Server.Host, name: s.Server.Name, port: s.Server.Port}
	var trust strings.Builder
	for _, cert := range s.Server.Trust() {
		trust.WriteString(config.Fingerprint(cert))
	}
	t.trust = trust.String()
	if s.Proxy != nil {
		t.proxied, t.proxy = true, *s.Proxy
	}
	return t
}

func (c *Client) newEndpoint(t target, trust []*x509.Certificate) *endpoint {
	port := strconv.Itoa(int(t.port))
	ep := &endpoint{target: t, clock: &clock{}, address: net.JoinHostPort(t.host, port), vhost: net.JoinHostPort(t.name, port), route: "direct"}
	if t.port == 443 {
		ep.vhost = strings.TrimSuffix(ep.vhost, ":443")
	}
	pool := x509.NewCertPool()
	for _, cert := range trust {
		pool.AddCert(cert)
	}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	ep.transport = &http.Transport{
		DialContext:            (&net.Dialer{Timeout: 15 * time.Second}).DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool, ServerName: t.name},
		TLSHandshakeTimeout:    15 * time.Second,
		ResponseHeaderTimeout:  c.cfg.Timeout,
		IdleConnTimeout:        2 * time.Minute,
		MaxIdleConnsPerHost:    4,
		MaxResponseHeaderBytes: 64 << 10,
		Protocols:              &protocols,
	}
	if t.proxied {
		ep.route = net.JoinHostPort(t.proxy.Host, strconv.Itoa(int(t.proxy.Port)))
		ep.transport.DialContext = newTunnel(t.proxy, ep.route).dial
	}
	return ep
}

// request is one signed call.
type request struct {
	op, path string
	// body is sent by POST; nil makes it a GET.
	body  []byte
	stamp int64
	// header is added to the request's.
	header http.Header
}

func (r *request) word() string {
	if r.body == nil {
		return wordGet
	}
	return wordPost
}

// answer is one whose MAC was right.
type answer struct {
	body []byte
	// served is the fingerprint of the server's certificate.
	served string
}

// envelope packs what the API wants: base64 of JSON in a JSON object.
func envelope(key string, inner []byte, more map[string]any) ([]byte, error) {
	object := map[string]any{key: base64.StdEncoding.EncodeToString(inner)}
	for name, value := range more {
		object[name] = value
	}
	return json.Marshal(object)
}

// post sends a body and returns the answer to it.
func (c *Client) post(ctx context.Context, r request) (*answer, error) {
	limited, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	ep := c.ep.Load()
	response, err := c.send(limited, ep, r)
	if err != nil {
		return nil, c.unanswered(ctx, ep, r.op, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	if err != nil {
		return nil, c.unanswered(ctx, ep, r.op, err)
	}
	if e := c.judge(ep, r, response, body, body); e != nil {
		return nil, e
	}
	a := &answer{body: body}
	if response.TLS != nil && len(response.TLS.PeerCertificates) > 0 {
		a.served = config.Fingerprint(response.TLS.PeerCertificates[0])
	}
	return a, nil
}

// send makes the request. The transport itself is used, and not an
// http.Client: so there is nobody to follow redirects or to keep cookies.
func (c *Client) send(ctx context.Context, ep *endpoint, r request) (*http.Response, error) {
	method, body := http.MethodGet, io.Reader(nil)
	if r.body != nil {
		method, body = http.MethodPost, bytes.NewReader(r.body)
	}
	req, err := http.NewRequestWithContext(ctx, method, "https://"+ep.address+"/"+r.path, body)
	if err != nil {
		return nil, err
	}
	req.Host = ep.vhost
	if r.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for name, values := range r.header {
		req.Header[name] = values
	}
	sign(req.Header, ep.id, ep.secret, r.stamp, r.word(), r.body)
	return ep.transport.RoundTrip(req)
}

// unanswered makes an error of a request without an answer. When the caller
// ended it, it is the caller's error and no *Error.
func (c *Client) unanswered(ctx context.Context, ep *endpoint, op string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s at %s: %w", op, ep.address, context.Cause(ctx))
	}
	e := unreached(ep, c.cfg.Now(), err)
	e.Op = op
	return e
}

// judge tells whether an answer can be used, and learns the server's time from
// it. The MAC covers signed; body is what there is to show.
func (c *Client) judge(ep *endpoint, r request, response *http.Response, signed, body []byte) error {
	local := c.cfg.Now()
	stamp, authentic := verify(response.Header, ep.secret, r.word(), signed)
	if authentic {
		ep.clock.learn(time.Unix(stamp, 0), local)
	}
	e := refused(response.StatusCode, response.Header, body)
	switch {
	case e != nil && e.Class == ClassAuth:
		suspectClock(ep, e, r.stamp, response.Header.Get("Date"), local)
	case e != nil:
	case len(body) > maxAnswer:
		e = &Error{Class: ClassAnswer, Problem: fmt.Sprintf("the answer has more than %d MB", maxAnswer>>20), Advice: "look into the server's log"}
	case authentic:
		return nil
	default:
		e = unsigned(response.Header, body)
	}
	e.Op, e.Server, e.Status = r.op, ep.address, response.StatusCode
	return e
}

// suspectClock tells a wrong clock from a wrong secret: the server answers both
// alike, but for the time at which it did.
func suspectClock(ep *endpoint, e *Error, stamp int64, date string, local time.Time) {
	server, err := http.ParseTime(date)
	if err != nil {
		return
	}
	// The answer's time is a second old at most, and so may the stamp be.
	ahead := time.Unix(stamp, 0).Sub(server)
	if ahead.Abs() < maxSkew-2*time.Second {
		return
	}
	ep.clock.learn(server, local)
	off := server.Sub(local.Round(0)).Round(time.Second)
	e.Class = ClassClock
	e.Problem = fmt.Sprintf("the server refuses the time of the request: its clock and this host's differ by %s", off)
	e.Advice = "set this host's clock, or the server's; until then the sensor uses the server's time"
}

// unsigned is the error about a good answer without a good MAC.
func unsigned(header http.Header, body []byte) *Error {
	if header.Get(headerAuth) == "" && bytes.HasPrefix(bytes.TrimSpace(body), []byte("<")) {
		return &Error{Class: ClassAnswer, Problem: "a web page came instead of an answer: " + snippet(body),
			Advice: "check that host and port are those of a HoneySens server"}
	}
	return &Error{Class: ClassMAC, Problem: "the answer is not signed with the sensor's secret",
		Advice: "check that nothing between sensor and server changes answers; if this stays, download the sensor's configuration again"}
}

// errStalled is why a download ended that brought nothing for too long.
var errStalled = errors.New("the download stalled")

package hsapi

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"honeysens.org/dockersensor/manager/internal/config"
)

// Limits of the talk with a proxy.
const (
	tunnelTimeout = 15 * time.Second
	maxProxyText  = 256 << 10
)

// Schemes by which a sensor can tell a proxy who it is, the better one first.
const (
	schemeNTLM  = "NTLM"
	schemeBasic = "Basic"
)

// schemeName is what others can be called: nothing that holds a secret.
var schemeName = regexp.MustCompile(`^[A-Za-z-]{1,20}$`)

// tunnel opens connections through an HTTP proxy (CONNECT, RFC 9110 9.3.6).
// User and password are sent only to a proxy that asks for them; NTLM
// (MS-NTHT), which belongs to one connection, goes before Basic. The user may
// be DOMAIN\user.
type tunnel struct {
	dialer net.Dialer
	// proxy is its address.
	proxy, user, password string
	// asks is the scheme that the proxy asked for the last time, or nil: it
	// saves a refusal with each further connection.
	asks atomic.Pointer[string]
}

func newTunnel(p config.Proxy, address string) *tunnel {
	return &tunnel{dialer: net.Dialer{Timeout: tunnelTimeout}, proxy: address, user: p.User, password: string(p.Password)}
}

// proxyError is a proxy that cannot be reached, or whose talk is broken.
type proxyError struct{ err error }

func (e *proxyError) Error() string { return e.err.Error() }

func (e *proxyError) Unwrap() error { return e.err }

// refusedConnect is the answer of a proxy that does not connect.
type refusedConnect struct {
	status int
	header http.Header
	// told is set when user and password were sent.
	told bool
}

// offers are the schemes by which the proxy knows its users.
func (r *refusedConnect) offers() []string {
	var schemes []string
	for _, value := range r.header.Values("Proxy-Authenticate") {
		scheme, _, _ := strings.Cut(strings.TrimSpace(value), " ")
		if schemeName.MatchString(scheme) {
			schemes = append(schemes, scheme)
		}
	}
	return schemes
}

// Error has none of the proxy's own words: they could repeat what it was told.
func (r *refusedConnect) Error() string {
	return strings.TrimSpace(fmt.Sprintf("the proxy answers %d %s", r.status, http.StatusText(r.status)))
}

// silent leaves out of an error what a proxy said.
func silent(err error) error {
	var network net.Error
	if errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	return errors.New("not HTTP")
}

// dial returns a connection that leads to the address.
func (t *tunnel) dial(ctx context.Context, _, address string) (net.Conn, error) {
	talk := &proxyTalk{tunnel: t, address: address}
	stop := context.AfterFunc(ctx, talk.interrupt)
	defer stop()
	conn, err := talk.connect(ctx)
	if err != nil {
		talk.close()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, err
	}
	return conn, nil
}

// proxyTalk is what it takes to get one connection.
type proxyTalk struct {
	*tunnel
	address string
	conn    net.Conn
	// in reads from conn and is bounded.
	in *bufio.Reader
	// current is conn for who interrupts.
	current atomic.Pointer[net.Conn]
}

func (p *proxyTalk) interrupt() {
	if conn := p.current.Load(); conn != nil {
		_ = (*conn).SetDeadline(time.Unix(1, 0))
	}
}

func (p *proxyTalk) close() {
	if p.conn != nil {
		_ = p.conn.Close()
		p.conn = nil
	}
}

func (p *proxyTalk) connect(ctx context.Context) (net.Conn, error) {
	scheme := ""
	if asks := p.asks.Load(); asks != nil {
		scheme = *asks
	}
	refused, err := p.try(ctx, scheme)
	if err == nil && refused != nil && refused.status == http.StatusProxyAuthRequired && p.user != "" {
		if next := choose(refused.offers()); next != "" && next != scheme {
			p.asks.Store(&next)
			refused, err = p.try(ctx, next)
		}
	}
	if err != nil {
		return nil, &proxyError{err}
	}
	if refused != nil {
		return nil, refused
	}
	if p.in.Buffered() > 0 {
		return nil, &proxyError{errors.New("the proxy sends before it is asked")}
	}
	return p.conn, p.conn.SetDeadline(time.Time{})
}

// choose returns the best scheme of those that a proxy offers, or "".
func choose(offers []string) string {
	for _, scheme := range []string{schemeNTLM, schemeBasic} {
		if slices.ContainsFunc(offers, func(offer string) bool { return strings.EqualFold(offer, scheme) }) {
			return scheme
		}
	}
	return ""
}

// try asks for the connection by a scheme, "" for none.
func (p *proxyTalk) try(ctx context.Context, scheme string) (*refusedConnect, error) {
	switch scheme {
	case schemeNTLM:
		return p.tryNTLM(ctx)
	case schemeBasic:
		return p.ask(ctx, schemeBasic, []byte(p.user+":"+p.password))
	default:
		return p.ask(ctx, "", nil)
	}
}

// tryNTLM greets, is given a challenge, and answers it on the same connection.
func (p *proxyTalk) tryNTLM(ctx context.Context) (*refusedConnect, error) {
	greeting, err := greetNTLM()
	if err != nil {
		return nil, err
	}
	refused, err := p.ask(ctx, schemeNTLM, greeting)
	if err != nil || refused == nil || refused.status != http.StatusProxyAuthRequired {
		return refused, err
	}
	challenge := challengeOf(refused.header)
	if challenge == nil {
		return refused, nil
	}
	if p.conn == nil {
		return nil, errors.New("NTLM: the proxy ends the connection instead of waiting for the answer to its challenge")
	}
	answer, err := answerNTLM(challenge, p.user, p.password)
	if err != nil {
		return nil, err
	}
	return p.ask(ctx, schemeNTLM, answer)
}

// challengeOf returns the proxy's NTLM challenge, or nil when there is none.
func challengeOf(header http.Header) []byte {
	for _, value := range header.Values("Proxy-Authenticate") {
		scheme, token, _ := strings.Cut(value, " ")
		if !strings.EqualFold(scheme, schemeNTLM) {
			continue
		}
		if challenge, err := base64.StdEncoding.DecodeString(strings.TrimSpace(token)); err == nil && len(challenge) > 0 {
			return challenge
		}
	}
	return nil
}

// ask sends a CONNECT and reads the answer, on a new connection when there is
// none. After a refusal there is one only when the proxy keeps it.
func (p *proxyTalk) ask(ctx context.Context, scheme string, token []byte) (*refusedConnect, error) {
	if p.conn == nil {
		if err := p.open(ctx); err != nil {
			return nil, err
		}
	}
	request := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: p.address}, Host: p.address, Header: http.Header{}}
	// Without this the library would name itself.
	request.Header.Set("User-Agent", "")
	request.Header.Set("Proxy-Connection", "keep-alive")
	if scheme != "" {
		request.Header.Set("Proxy-Authorization", scheme+" "+base64.StdEncoding.EncodeToString(token))
	}
	if err := request.Write(p.conn); err != nil {
		return nil, fmt.Errorf("ask the proxy: %w", err)
	}
	response, err := http.ReadResponse(p.in, request) //nolint:bodyclose // there is none when the connection is made, whatever the head says (RFC 9110 9.3.6)
	if err != nil {
		return nil, fmt.Errorf("read the proxy's answer: %w", silent(err))
	}
	if response.StatusCode == http.StatusOK {
		return nil, nil //nolint:nilnil // neither refused nor failed
	}
	defer response.Body.Close()
	refused := &refusedConnect{status: response.StatusCode, header: response.Header, told: scheme != ""}
	if !keeps(response) {
		p.close()
		return refused, nil
	}
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		p.close()
	}
	return refused, nil
}

// keeps tells whether the proxy waits for another request on the connection.
// Old ones say so by a header of their own.
func keeps(response *http.Response) bool {
	if response.ContentLength < 0 && len(response.TransferEncoding) == 0 {
		return false // the answer ends with the connection
	}
	switch strings.ToLower(response.Header.Get("Proxy-Connection")) {
	case "keep-alive":
		return true
	case "close":
		return false
	}
	return !response.Close
}

func (p *proxyTalk) open(ctx context.Context) error {
	conn, err := p.dialer.DialContext(ctx, "tcp", p.proxy)
	if err != nil {
		return err
	}
	p.conn, p.in = conn, bufio.NewReader(io.LimitReader(conn, maxProxyText))
	if err := conn.SetDeadline(time.Now().Add(tunnelTimeout)); err != nil {
		return err
	}
	p.current.Store(&conn)
	if ctx.Err() != nil {
		p.interrupt()
	}
	return nil
}

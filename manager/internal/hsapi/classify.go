package hsapi

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"
)

// unreached makes an Error of a request that got no answer.
func unreached(ep *endpoint, now time.Time, err error) *Error {
	for _, explain := range []func(*endpoint, time.Time, error) *Error{explainProxy, explainTLS, explainRoute} {
		if e := explain(ep, now, err); e != nil {
			e.Server, e.Err = ep.address, err
			return e
		}
	}
	return &Error{Class: ClassRoute, Server: ep.address, Err: err,
		Problem: "no answer", Advice: "check the route to the server, and firewalls on the way"}
}

func explainProxy(ep *endpoint, _ time.Time, err error) *Error {
	var refused *refusedConnect
	if errors.As(err, &refused) {
		return explainRefusal(ep, refused)
	}
	var broken *proxyError
	if !errors.As(err, &broken) {
		return nil
	}
	e := &Error{Class: ClassProxy, Problem: "the proxy " + ep.route + " cannot be reached",
		Advice: "check the proxy in the sensor's settings at the server, and the route to it"}
	var op *net.OpError
	var timeout net.Error
	switch {
	case errors.As(err, &op) && op.Op == "dial":
	case errors.As(err, &timeout) && timeout.Timeout():
		e.Problem, e.Advice = "the proxy "+ep.route+" does not answer in time", "check that the proxy itself reaches "+ep.address
	default:
		e.Problem, e.Advice = "the proxy "+ep.route+" does not answer as a proxy does", "check that host and port are those of an HTTP proxy"
	}
	return e
}

func explainRefusal(ep *endpoint, refused *refusedConnect) *Error {
	e := &Error{Class: ClassProxy, Status: refused.status, Problem: "the proxy " + ep.route + " does not connect"}
	switch refused.status {
	case http.StatusProxyAuthRequired:
		explainCredentials(e, ep, refused)
	case http.StatusForbidden, http.StatusMethodNotAllowed:
		e.Advice = "allow CONNECT to " + ep.address + " at the proxy"
	default:
		e.Advice = "check that the proxy itself reaches " + ep.address
	}
	return e
}

func explainCredentials(e *Error, ep *endpoint, refused *refusedConnect) {
	e.Advice = "check proxy user and password in the sensor's settings at the server"
	switch {
	case refused.told:
		e.Problem = "the proxy " + ep.route + " does not accept user and password"
	case ep.proxy.User == "":
		e.Problem = "the proxy " + ep.route + " wants a user and a password"
	default:
		e.Problem = fmt.Sprintf("the proxy %s knows users by %.100q only", ep.route, strings.Join(refused.offers(), ", "))
		e.Advice = "allow NTLM or Basic at the proxy: sensors know these"
	}
}

func explainTLS(ep *endpoint, now time.Time, err error) *Error {
	var invalid x509.CertificateInvalidError
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var verification *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return explainExpired(now, invalid.Cert)
	case errors.As(err, &name):
		return &Error{Class: ClassTLS, Problem: fmt.Sprintf("the server's certificate is not for the name %s", ep.name),
			Advice: "give the server a certificate with that name, or download the sensor's configuration again when the name has changed"}
	case errors.As(err, &unknown), errors.As(err, &verification):
		return &Error{Class: ClassTLS, Problem: "the server's certificate is not the one that the configuration archive trusts",
			Advice: "if the server's certificate was replaced, download the sensor's configuration again; else somebody may be between sensor and server"}
	case errors.Is(err, http.ErrSchemeMismatch), errors.As(err, &record):
		return &Error{Class: ClassTLS, Problem: "the port does not speak TLS", Advice: "check that the server's HTTPS port is right"}
	case strings.Contains(err.Error(), "tls: "):
		// Alerts, and disagreement about versions, have no exported type.
		return &Error{Class: ClassTLS, Problem: "the TLS handshake failed", Advice: "check that the server speaks TLS 1.2 or newer"}
	}
	return nil
}

// explainExpired tells a certificate that has ended from a clock that is late.
func explainExpired(now time.Time, cert *x509.Certificate) *Error {
	if cert != nil && now.Before(cert.NotBefore) {
		return &Error{Class: ClassClock, Advice: "set this host's clock",
			Problem: fmt.Sprintf("the server's certificate begins at %s, and this host's clock says %s",
				cert.NotBefore.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))}
	}
	e := &Error{Class: ClassTLS, Problem: "the server's certificate has ended",
		Advice: "renew the server's certificate, unless this host's clock is wrong"}
	if cert != nil {
		e.Problem += " at " + cert.NotAfter.UTC().Format(time.RFC3339)
	}
	return e
}

func explainRoute(ep *endpoint, _ time.Time, err error) *Error {
	var dns *net.DNSError
	var timeout net.Error
	switch {
	case errors.As(err, &dns):
		return &Error{Class: ClassName, Problem: fmt.Sprintf("the name %.253q cannot be resolved", dns.Name),
			Advice: "check this host's name servers, and the name in the sensor's settings"}
	case errors.Is(err, syscall.ECONNREFUSED):
		return &Error{Class: ClassRoute, Problem: "the connection is refused", Advice: "check that the server runs and that its port is right"}
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return &Error{Class: ClassRoute, Problem: "there is no route", Advice: "check this host's addresses and its default route"}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, errStalled), errors.As(err, &timeout) && timeout.Timeout():
		return &Error{Class: ClassRoute, Problem: "no answer in time", Advice: "check the route to the server (" + ep.route + "), and firewalls on the way"}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return &Error{Class: ClassRoute, Problem: "the connection ended before the answer", Advice: "look into the server's log"}
	case strings.Contains(err.Error(), "malformed"), strings.Contains(err.Error(), "response headers exceeded"):
		return &Error{Class: ClassAnswer, Problem: "the answer is not HTTP", Advice: "check that host and port are those of a HoneySens server"}
	}
	return nil
}

// snippet is the start of an answer, safe to show.
func snippet(body []byte) string {
	return fmt.Sprintf("%.60q", strings.ToValidUTF8(string(body[:min(len(body), 200)]), "?"))
}

// refused makes an Error of an answer's status, or nil for a good one.
func refused(status int, header http.Header, body []byte) *Error {
	e := &Error{Status: status}
	switch {
	case status == http.StatusOK, status == http.StatusPartialContent:
		return nil
	case status == http.StatusBadRequest:
		e.Class, e.Problem = ClassRejected, "the server refuses the content, or does not know this sensor"
		e.Advice = "check that the sensor still exists at the server"
	case status == http.StatusForbidden:
		e.Class, e.Problem = ClassAuth, "the server refuses the sensor's signature"
		e.Advice = "download the sensor's configuration from the server again: its secret has changed"
	case status == http.StatusNotFound:
		e.Class, e.Problem = ClassNotFound, "the server does not have it"
	case status >= 300 && status < 400:
		e.Class = ClassAnswer
		e.Problem = fmt.Sprintf("the server redirects to %.200q, which is never followed", header.Get("Location"))
		e.Advice = "check that the port is the HTTPS port, and that the server's installation was finished"
	case status >= 500:
		e.Class, e.Problem = ClassServer, fmt.Sprintf("the server has trouble: %d %s", status, snippet(body))
		e.Advice = "look into the server's log"
	default:
		e.Class, e.Problem = ClassAnswer, fmt.Sprintf("unexpected answer %d %s", status, snippet(body))
		e.Advice = "check that host and port are those of a HoneySens server"
	}
	return e
}

package hsapi

import (
	"errors"
	"fmt"
)

// Class says what kind of trouble a request met, and so who can help.
type Class string

// The classes.
const (
	// ClassName: the server's name cannot be resolved.
	ClassName Class = "name"
	// ClassRoute: no connection, or one that ended before the answer.
	ClassRoute Class = "route"
	// ClassProxy: the proxy cannot be reached, or refuses.
	ClassProxy Class = "proxy"
	// ClassTLS: the certificate is not trusted, or there is no TLS.
	ClassTLS Class = "tls"
	// ClassClock: this host's clock and the server's are too far apart.
	ClassClock Class = "clock"
	// ClassAuth: the server does not accept the sensor's secret.
	ClassAuth Class = "auth"
	// ClassUnknown: the server does not know the sensor.
	ClassUnknown Class = "unknown"
	// ClassRejected: the server refuses the content, or the sensor is unknown
	// to it (400, which it decides before it looks at the secret). Of a poll it
	// is the content.
	ClassRejected Class = "rejected"
	// ClassNotFound: the server does not have what was asked for.
	ClassNotFound Class = "not-found"
	// ClassServer: trouble of the server's own (5xx). It also says so of text
	// that does not fit into its database.
	ClassServer Class = "server"
	// ClassMAC: an answer that the sensor's secret did not sign.
	ClassMAC Class = "mac"
	// ClassAnswer: an answer that is not one of a HoneySens server.
	ClassAnswer Class = "answer"
)

// Error is a request that failed.
type Error struct {
	Class Class
	// Op is what was tried, such as "poll".
	Op string
	// Server is its address.
	Server string
	// Status is that of HTTP, or 0 when there was no answer.
	Status int
	// Problem says what is wrong, and Advice what to do about it.
	Problem, Advice string
	// Err is the cause, or nil.
	Err error
}

// Error tells a person what happened and what to do.
func (e *Error) Error() string {
	text := fmt.Sprintf("%s at %s: %s", e.Op, e.Server, e.Problem)
	if e.Err != nil {
		// A server may have chosen the text.
		text += fmt.Sprintf(" (%.300s)", e.Err.Error())
	}
	if e.Advice != "" {
		text += "; " + e.Advice
	}
	return text
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Rejected tells whether the server refused the content: to send the same again
// is in vain.
func (e *Error) Rejected() bool { return e.Class == ClassRejected }

// ServerFault tells whether the server answered with trouble of its own: that
// may be an outage, or content that it cannot store.
func (e *Error) ServerFault() bool { return e.Class == ClassServer }

// IsRejected tells whether the server refused the content (400).
func IsRejected(err error) bool { return ClassOf(err) == ClassRejected }

// ClassOf returns the class of an error, or "" when it is none of a request,
// such as a context that ended.
func ClassOf(err error) Class {
	var e *Error
	if errors.As(err, &e) {
		return e.Class
	}
	return ""
}

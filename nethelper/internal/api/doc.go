// Package api serves the helper's API on a unix socket.
//
// Who calls is what the kernel says when the connection is made, not what the
// caller says. One user may write; root may read; all others are refused before
// a byte of theirs is read. Every change and every refusal leaves an audit line.
//
// When a handler panics, Serve ends: a helper that may have stopped half way
// through a change must start anew rather than serve on.
package api

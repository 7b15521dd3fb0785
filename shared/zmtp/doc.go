// Package zmtp speaks ZMTP 3.0 and 3.1, the wire protocol of ZeroMQ, as far as
// a request and its reply need it: the greeting, the NULL mechanism, frames,
// multipart messages, and the heartbeat (RFC 23/ZMTP, RFC 37/ZMTP).
//
// It is written for a hostile peer. Invariants:
//   - no length that a peer announces is allocated before it is checked, and a
//     body grows only as fast as its bytes arrive;
//   - a reserved bit, an unknown mechanism, a socket type that was not asked
//     for, or a malformed command ends the connection;
//   - no call starts a goroutine that outlives it;
//   - how long a peer may take is decided by the caller, who sets deadlines on
//     the net.Conn; Begin tells when a message has begun.
//
// It refuses PLAIN, CURVE, GSSAPI, ZMTP 1 and 2, and every socket type but
// those of a request.
package zmtp

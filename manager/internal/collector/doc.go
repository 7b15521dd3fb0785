// Package collector takes events from honeypots over ZeroMQ, as a REP socket.
//
// Honeypots are attacked on purpose and may be in foreign hands. Their plug-ins
// wait for a reply for ever. Invariants:
//   - every message that can be read gets a reply, in the order of the requests
//     of its connection: "ok" only after the sink has the event for good, else
//     an error that says why;
//   - who an event is from is decided by the address of the connection;
//   - connections, messages and the time for them are bounded in all and for
//     each address, and one address decodes one message at a time: a honeypot
//     that misbehaves slows down itself only.
//
// It refuses peers that it does not know, every ZeroMQ socket type but REQ and
// DEALER, every security mechanism but NULL, and events beyond repair.
package collector

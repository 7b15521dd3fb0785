// Package uploader brings events from the spool to the server.
//
// The server takes a batch or refuses all of it, stores what it gets twice a
// second time, and answers alike to an event that it cannot store and to its
// own failure. Invariants:
//   - an event leaves the spool only when the server has answered that it has
//     it, or into quarantine; delivery is at least once;
//   - a refused batch is halved until the bad event stands alone; the others go
//     on without it;
//   - an event is set aside only when the server refused it alone, for whatever
//     reason, while it took others: what an outage or an unknown sensor looks
//     like is no reason;
//   - what the spool lost is told to the server as an event of its own, once the
//     server takes events again;
//   - a lone event leaves at once; what comes while a request is under way
//     leaves together.
//
// Errors of the network and of authentication lose nothing and are no fault of
// any event: they are waited out.
package uploader

// Package spool keeps events on disk from the moment a honeypot is told that
// its event is safe until the server has it.
//
// Invariants:
//   - when Append returns nil the event has been synced to disk: it survives a
//     kill and a power cut;
//   - an event leaves the spool only by Ack, by Quarantine, or by a loss that
//     is counted in the same transaction;
//   - the events never take more than Config.MaxBytes, those in quarantine never
//     more than Config.MaxQuarantine; in both the origin that has most bytes
//     loses its oldest first: no event of an origin is lost while another one
//     has more;
//   - the file is never much larger than the most that it held since Open, which
//     shrinks one that is mostly empty;
//   - a spool that was damaged is put aside, what can be read of it is taken
//     over, and the rest is a loss of unknown size.
//
// Delivery is at least once: a kill between the server's answer and Ack makes
// the same event go out again.
//
// It refuses to be opened by two processes, and to say yes when the disk says
// no. It does not look into events.
package spool

// Package tracker turns what reaches the honeypot into events: it groups probes
// by the address they come from.
//
// Invariants:
//   - A source is collected until it has been silent for Config.Silence, at most
//     for Config.Longest; then it becomes one event.
//   - A source whose probes reach Config.ScanAfter becomes a scan at once and is
//     ignored for Config.Ignore, so the event of a scan has a bounded size and
//     an attacker who goes on shows up once a period.
//   - Memory is bounded whatever arrives: sources by Config.MaxSources, probes a
//     source by Config.ScanAfter, payload by MaxPayload. What does not fit is
//     counted.
//
// The package knows no network and no clock: times come in with the probes. It
// is not safe for concurrent use.
package tracker

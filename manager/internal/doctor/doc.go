// Package doctor examines a sensor and its host and says what to do about what
// it finds, for a person who is about to deploy one, or who wonders why one
// does not work.
//
// Before the deployment it looks at the host and asks the server itself. Once a
// manager runs, it asks that one: a second client with a clock of its own could
// make the server refuse the first.
//
// Invariants:
//   - Nothing is changed, but for a file that is made in the state directory
//     and removed at once.
//   - The server learns nothing new about the sensor, not even that it was there.
//   - Every problem has the words for what to do. What needs no action is a note.
//   - No examination waits for longer than Config.Patience.
//
// It refuses to guess: what cannot be examined is skipped, with the reason.
package doctor

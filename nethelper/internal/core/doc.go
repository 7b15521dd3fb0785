// Package core brings the host's network to the wanted state and keeps it
// there.
//
// Invariants:
//   - A state is in force as a whole or not at all: when a step fails, the state
//     before is brought back. When that fails, too, the outcome is unknown, and
//     the caller is told so.
//   - A new redirect comes into force after its service is attached, and a
//     service is detached after its redirect has gone, so nothing leads nowhere.
//   - The heartbeat of the redirects beats only while the links behind them are
//     found right.
//   - Nothing is remembered that the kernel could tell, except for the wanted
//     state, for the next helper after a kill.
package core

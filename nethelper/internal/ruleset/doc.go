// Package ruleset translates the wanted state of a sensor into one nftables
// table of family inet. It is pure: it knows no kernel and no clock, and nft
// applies what it returns.
//
// # What is redirected
//
// The first packet of a connection that arrives at the sensor's interface for
// a local address and that nobody on the host waits for: TCP only with SYN
// alone, UDP only when it is not the answer to something the host has sent
// within the last minutes. The source address stays as it is. Two base chains
// of type nat do it, "assigned" for ports that the server has given to a
// service and "catchall" for the rest. They see the first packet of a
// connection only, so established connections never change hands.
//
// # What is contained
//
// Two filter chains, "forwarded" and "received", let services answer those who
// came to them and reach the collector, and nothing else unless the egress
// policy opens it. They do not depend on the heartbeat.
//
// # Invariants
//
//   - The number of rules depends on neither the services nor their ports: both
//     are elements of sets and maps.
//   - Each rule is put together from parts that carry its expressions and its
//     words in nft's syntax at once, so what Text shows is what the kernel gets.
//   - All sets that start a redirection hang on the set "ifaces", whose element
//     runs out unless the helper refreshes it. After that the host is, for new
//     connections, as if there were no sensor.
//   - Nothing in the table depends on the order in which two chains of the same
//     priority were registered.
//
// It refuses a state that contradicts itself (see New) and never writes a name
// that could break out of nft's syntax.
package ruleset

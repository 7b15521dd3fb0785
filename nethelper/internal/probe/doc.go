// Package probe makes a connection to a port of the sensor's own interface that
// takes the whole way of an attacker's: in at the interface, through every rule
// of the host, and the answers out at the interface.
//
// Nothing that a host sends to itself passes its interface. So the packets are
// made here, sent at the services bridge, caught there by a filter of traffic
// control, and handed to the interface as if its card had received them
// (tc-mirred(8)). Answers are read from a packet socket on their way out. They
// carry the interface's own hardware address as their destination, so no switch
// leads them anywhere.
//
// Invariants:
//   - One probe at a time. Its sources are of a network that nobody has
//     (helperapi.ProbeNetwork), and what it says is fixed.
//   - What it changes is the way back: a route and a neighbour for one address, and
//     the filter at the sensor's own bridge, for some seconds. After a kill the
//     kernel forgets the neighbour by itself, the bridge takes the filter with it,
//     and Cleanup finds the route by its protocol number and network.
//
// It refuses anything but IPv4, and interfaces without one hardware address.
//
// Honeypots are hostile: the socket is filtered down to one flow, and of what
// arrives only fixed parts of the headers are looked at.
package probe

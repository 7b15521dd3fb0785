// Package catchall answers every TCP port of this network namespace and keeps
// silent on every UDP port.
//
// One listener serves all ports: rules in an nftables table of the package's own
// hand it each connection whose destination is an address of this host. They use
// the kernel's transparent proxy, so a connection keeps the port that the
// attacker dialled. A redirect by address translation would not do: a scanner
// that uses one source port for all ports of its target would meet one answered
// port, since translated connections must differ in something.
//
// Nothing is ever sent on a connection. What the attacker says first is read, up
// to tracker.MaxPayload bytes and for a few seconds, then the connection ends.
// The number of connections is bounded, in all and for each source; those above
// are completed and closed at once.
//
// The rules are meant for a namespace that holds nothing but the honeypot. Never
// install them in that of a host.
package catchall

// Package capture sees what reaches an interface before the kernel's own
// firewall and sockets do, so half-open scans and datagrams to closed ports are
// seen, too.
//
// A probe is a UDP datagram, or a TCP segment with neither ACK nor RST: that is
// the first segment of a connection (SYN) or one of those that scanners make up
// (NULL, FIN, Xmas). No segment of a live connection but its first lacks ACK
// (RFC 9293, 3.10.7.4), so late packets of connections are no probes.
//
// It only reads. Fragments but the first are not looked at, nor are packets to
// several receivers, nor DHCP, nor what this host sends. Datagrams that answer
// something that this host sent in the last minutes are no probes either.
package capture

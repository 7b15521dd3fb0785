// Package iface brings the sensor's interface to what the server wants: address
// by DHCP or fixed, hardware address, 802.1X. It says what keeps the interface
// from being of use, or what differs from the wanted state.
//
// Invariants:
//   - What the host has configured itself stays. An address that is there already
//     is neither changed nor removed at the end, and where the host has given the
//     interface an IPv4 address there is no DHCP by the sensor: two clients on one
//     interface would take it from each other.
//   - Whatever is changed is noted in the alias of the interface before, so that
//     the kernel itself remembers what was: after a kill, or for another process
//     that cleans up, the alias is all that is needed.
//   - The kernel ends an address together with its lease, whether a helper lives
//     or not.
//   - Routes have a metric so high that those of the host always win.
//   - IPv6 addresses of the interface stay, over a change of the hardware address
//     too.
//   - The last sensor that was told to have an interface has it; the one before
//     lets go of it without undoing anything, which makes an update seamless.
//
// It refuses: networks that would take traffic from other interfaces of the
// host, leases with impossible content, routes other than one to the gateway.
//
// Everything a DHCP server says is hostile. The only socket that sees packets is
// open while an answer is waited for, and the kernel filters it down to DHCP.
// wpa_supplicant speaks 802.1X; no value reaches its configuration but as
// hexadecimal digits, and no file but what was decoded as PEM and encoded again.
//
// Known limits: answers to what comes in over the interface leave by the host's
// own routes. An address that another machine uses is not noticed.
package iface

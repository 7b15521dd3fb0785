package ruleset

const documentHead = `# The rules

Written by a test from the rules themselves (` + "`go test ./nethelper/internal/ruleset -update`" + `); do not edit. ` + "`nethelper rules`" + ` shows
them with the values of a sensor, and ` + "`nft list table inet honeysens-ID`" + ` (and ` + "`bridge`" + `) shows what the kernel has: another test compares the two.

Everything is in one table of family inet and one of family bridge, both named after the first twelve digits of the sensor's container id, and
is replaced in one transaction. Their size does not depend on services and ports, which are elements of sets and maps. All chains have the
policy accept: what no rule is about goes on as without a sensor. The helper owns the tables, and puts back within a second what others remove.

Here ` + "`eth0`" + ` is the sensor's interface, ` + "`hs-0123456789`" + ` the services bridge with 10.10.10.0/24 and fd12:3456:789a:1::/64.
`

const documentTail = `
## What an attacker can still tell

Redirected ports answer with the TTL of the host, to a packet that may go no further than the host, with silence where a listening program
is silent and with a reset where it resets. Not hidden are:

- The TTL that an ICMP error of a service quotes is one less than what arrived: the packet had one more hop.
- A packet that does not fit an existing connection (wrong sequence number) gets a reset from the host, where a program would answer with an
  acknowledgement, at ports of the catch-all: there it cannot be told from a late packet of a connection of the host, which must go to the
  host. At assigned ports it gets no answer.
- A connection that conntrack has forgotten, such as after five days without a packet or when its table is full, ends with a reset.
- TCP timestamps and the numbers of IP packets of services count for themselves; over several ports that shows several machines.
- The protocol stack is the one of the host's kernel, but settings of the host (window sizes, congestion control) are those of a new network
  namespace.
- A service whose container has ended shows as an unreachable host until the next state is in force.
- A port whose service is flooded above its bounds is silent while that lasts, to everybody.
- The time for one more hop in the same machine, some microseconds.
- Nobody answers for a service at a link-local address of the host: the answer could not be routed back.
`

// sentences say why, for each chain and for each rule by its chain and comment.
var sentences = map[string]string{
	"assigned": "Leads ports that the server has assigned. Chains of type nat see the first packet of a connection only, so established connections never change hands.",
	"assigned: a port that belongs to a service": "New connections at the interface, to any address of the host, as long as the helper lives.",

	"assign":                                  "Decides about a port that a service has.",
	"assign: never redirected":                "What must not be redirected whoever wants it leaves here.",
	"assign: the host uses it":                "With `HOST_PORTS=protect` a port that any socket of the host waits at stays with the host; the next chain records it.",
	"assign: to the service":                  "The map knows the address and port of the service. The source stays, so that the honeypot sees the attacker.",
	"assign: the host uses it, on an address": "With `HOST_PORTS=assigned` a program keeps a port that it has bound on one address, and every connection that exists.",
	"assign: the host uses it on all addresses, and loses it here": "A program on the wildcard address loses the port at this interface; that is recorded, for the operator to see.",

	"catchall":                  "Leads everything else. It comes after all others, so what Docker publishes is gone already.",
	"catchall: everything else": "New connections at the interface, to any address of the host, as long as the helper lives.",

	"catch":                       "Decides about a port that no service has.",
	"catch: never redirected":     "What must not be redirected whoever wants it leaves here.",
	"catch: the host uses it":     "Records for an hour that the host has it, for the operator to see. Recording ends the rule when the set is full, so it is a rule of its own.",
	"catch: so the host keeps it": "The catch-all never takes a port that a socket of the host waits at.",
	"catch: to the catch-all":     "To the same port of the catch-all honeypot. The source stays, so that the honeypot sees the attacker.",

	"guard":                  "What goes to the host, whoever wants the port.",
	"guard: protected ports": "The operator's `PROTECTED_PORTS`.",
	"guard: late packets of connections that are forgotten": "TCP without SYN belongs to a connection that conntrack has forgotten: it is no attack.",
	"guard: answers of DHCP servers":                        "The host may get its address by DHCP, with a raw socket that nothing shows.",
	"guard: answers could not be routed back":               "Link-local addresses mean nothing behind the host.",
	"guard: nobody out there has an address of a service":   "Such a source is forged, and the answer would stay within the bridge.",
	"guard: answers to the host, from one it asked":         "UDP from where the host has sent some within five minutes, back to the port that it sent from.",
	"guard: answers to the host, which asked many at once":  "After a question to a multicast or broadcast address anybody may answer.",

	"arrived":                "Sees what comes in after all translation, and before the routing decision.",
	"arrived: led somewhere": "New connections that a rule has translated, be it one of these or another.",

	"published":                                   "Records what other rules lead elsewhere.",
	"published: a service gets it":                "By the rules of the sensor.",
	"published: somebody else leads it elsewhere": "For the operator to see: an assigned port that Docker publishes leaves no other trace.",

	"arrived: a program would get it": "A packet that may go no further than the host gets the one hop to the service: a program would have got it, too.",
	"arrived: the host was no router": "What is for others is dropped before the kernel answers it. A bridge is left out, for with br_netfilter its own frames pass here.",

	"strangers":                             "Leaves alone what is not to be forwarded.",
	"strangers: for the host":               "An address of the host.",
	"strangers: for many":                   "A broadcast or multicast address.",
	"strangers: for one of many":            "An anycast address.",
	"strangers: neither redirect nor error": "The rest would be routed, or be answered as by a router.",

	"sent": "Sees what leaves, as it leaves.",
	"sent: UDP that the host sends by itself":                             "Also what it sends for containers of its own: answers come to the same address.",
	"sent: answers come from the host itself, as far as anybody can tell": "Answers of services have the number of hops left that the host's own packets have (`net.ipv4.ip_default_ttl`, `net.ipv6.conf.IFACE.hop_limit`).",

	"remember":                              "Remembers whom the host has asked, for five minutes after the last packet.",
	"remember: to many: anybody may answer": "The port that it was asked from.",
	"remember: to one: that one may answer": "Both addresses and ports.",

	"counted":                               "Counts, and translates the source of what services may send.",
	"counted: connections led to a service": "The element of the service's address counts.",
	"counted: services go out by the address of the host": "With open egress answers must find back.",
	"forwarded":                         "What the host forwards from and to services, and nothing else on their account.",
	"forwarded: what services send":     "Whatever comes from the bridge.",
	"forwarded: what services get":      "Whatever goes to the bridge.",
	"forwarded: the host was no router": "The sensor has switched forwarding on for this interface; nobody else may gain by it. What leaves where it came in is a bridge's own, see `arrived`.",
	"forwarded: nor between other interfaces, which the switch has opened as well": "Kernels before 6.17 have one IPv6 switch for all interfaces. Two bridges are left alone, for with br_netfilter a bridge's own frames pass here.",

	"to_services": "What reaches a service.",
	"to_services: connections that exist, and errors about them": "Including ICMP, for path MTU discovery.",
	"to_services: connections that were redirected":              "From the interface, by the rules above or by the operator's own.",
	"to_services: nobody else reaches a service":                 "Neither other networks of the host nor other services.",

	"from_services": "What a service may send.",
	"from_services: an address that no service has":                   "A forged source. Counted.",
	"from_services: answers to those who came, and errors about them": "Answers within connections that an attacker began.",
	"from_services: belongs to nothing":                               "Not counted: it is what is left of connections.",
	"from_services: what is left of a connection that is forgotten":   "Not counted: it is what is left of connections.",
	"from_services: nothing else":                                     "Everything that a service begins by itself.",
	"from_services: public addresses":                                 "With `EGRESS=internet`: out by the interface, to addresses that are public by RFC 6890.",
	"from_services: everything out there":                             "With `EGRESS=all`: everywhere but to other services.",

	"admit":                   "Bounds what one service may cost the host, by what attackers begin.",
	"admit: too many at once": "Each service has an element that remembers its rate, and one that counts what is dropped. The state shows it.",
	"admit: its share of the table of connections": "Conntrack's table is the host's as well: when it is full, the host's own connections fail. Here a connection is not in it yet. One that a side has closed does not count.",
	"admit: the rest": "Goes to the service.",

	"begin":                         "Bounds what one service may cost the host, by what it begins where it may.",
	"begin: connections that exist": "The bounds are about new ones.",
	"begin: too many at once":       "Each service has an element that remembers its rate, and one that counts what is dropped. The state shows it.",
	"begin: its share of the table of connections": "The same count as in `admit`, so both directions together.",
	"begin: the rest": "Goes out.",

	"refuse":                          "Ends what a service tries and may not.",
	"refuse: the service's own count": "The element of the service's address counts; the state shows it, and the manager reports it to the server.",
	"refuse: where it wanted to go":   "Notes a few places of each service a minute, with protocol and port (for ICMP type and code). Noting ends the rule when the set is full, so it is a rule of its own.",
	"refuse: all services together":   "Dropped without an answer.",

	"note":                              "Notes for ten minutes where services wanted to go: the state shows it.",
	"note: to a port":                   "Address, protocol and port.",
	"note: without ports, such as ICMP": "Address and protocol.",

	"from_ports":                     "Sees frames as they come from the ports of bridges, before the bridge learns addresses from them.",
	"from_ports: what services send": "Ports of other bridges are left alone.",

	"genuine":                                            "Lets a service be itself and nobody else: hardware address, IPv4 and IPv6 address belong to the port that it is behind.",
	"genuine: too many at once":                          "Bounds the packet rate of one service. Counted by the name of the port.",
	"genuine: plays the router":                          "Router advertisements and redirects. Counted by the name of the port, like all that is forged.",
	"genuine: plays the DHCP server":                     "Of either family.",
	"genuine: under its own address":                     "The one way for packets of IPv4 and IPv6. Link-local addresses are those that follow from the hardware address.",
	"genuine: asks and answers for its own address":      "ARP: the sender is who he says he is, in the frame and in the message.",
	"genuine: from an interface that has no address yet": "Duplicate address detection and the like. Not counted: it is no attempt.",
	"genuine: no attempt of anybody":                     "Every protocol stack says that by itself; dropped without being counted.",
	"genuine: everything else":                           "A forged source, or no protocol that a service needs.",

	"to_ports":                   "Sees frames as they leave by the ports of bridges.",
	"to_ports: too many at once": "Bounds the packet rate to one service, so that a flood stays off the others. Counted by the name of the port.",

	"transit":                            "What passes although the host was no router.",
	"transit: somebody has led it there": "Translated on purpose, such as a port that Docker publishes.",
	"transit: answers to what was sent from there": "Of containers and virtual machines of the host.",
	"transit: the host is no router":               "As it was before the sensor came.",

	"received": "What comes to the host itself.",
	"received: what services send to the host":                               "Whatever comes from the bridge.",
	"received: no packet of a connection: FIN, nothing, or a Christmas tree": "A scanner's packet: without SYN, ACK and RST. A listening program leaves it unanswered.",
	"received: no packet of a connection":                                    "SYN and FIN at once: another one.",
	"received: does not fit the connection of a service":                     "Conntrack finds it out of the window of its connection, so it comes here, where nobody knows it: a reset would end the attacker's connection.",

	"to_host":                                                 "What a service may send to the host.",
	"to_host: neighbour discovery":                            "IPv6 needs it.",
	"to_host: no attempt of anybody":                          "Every protocol stack says that by itself; dropped without being counted.",
	"to_host: an address that no service has":                 "A forged source. Counted.",
	"to_host: answers to the host":                            "Should the host begin a connection to a service.",
	"to_host: the collector":                                  "Events go to this one port of the bridge's own address.",
	"to_host: belongs to nothing":                             "Not counted: it is what is left of connections.",
	"to_host: what is left of a connection that is forgotten": "Not counted: it is what is left of connections.",
	"to_host: nothing else":                                   "The host's other ports and addresses.",

	"silence":                       "Drops what a listening program would leave unanswered.",
	"silence: never redirected":     "The host answers for these.",
	"silence: the host uses it":     "The program answers, or does not.",
	"silence: a service has it":     "No answer, as from a listening program.",
	"silence: the catch-all has it": "No answer, as from a listening program.",
}

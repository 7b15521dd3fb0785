// Package passage gets redirected connections through the firewalls of others.
// A packet that one chain drops is lost whatever other chains say, so where
// somebody else's forward chain drops by default, or by a rule about interfaces,
// protocols or new connections that takes all attackers, a rule of ours has to be
// in it: in DOCKER-USER where Docker has made that, which is its place for the
// rules of others, else on top of the chain. Drops with other conditions, such as
// an address that somebody has banned, are not the sensor's business, and no
// reason to open anything.
//
// Invariants:
//
//   - Every rule carries the name of the sensor's table as its comment. What is
//     removed is found by that comment in the kernel, nothing is remembered.
//   - In chains of the iptables programs a rule is made of their own matches, so
//     that "iptables -S" shows an ordinary rule; it cannot show others.
//   - A chain that lets everything pass is not touched.
//   - The rules open the way between the services bridge and the rest; the
//     sensor's own table, which comes first, says what may use it.
//
// The chains of iptables-legacy cannot be reached by netlink; only its own
// program can write them. That program makes the tables that it looks for, so it
// is started only where /proc/net has a filter table of its kind already, with
// arguments of this package, and no shell. The kernel tells nobody when such a
// table changes: Watch compares copies of it. The lock of those programs is a
// file, which a container does not share with its host; the kernel refuses a
// replacement that was made for another number of rules, and the next look tries
// again.
package passage

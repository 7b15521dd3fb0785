// Package selftest has each honeypot visited as an attacker would, and follows
// the visit the whole way: in at the interface, redirected, answered by the
// honeypot, and reported to the collector. It says where a way breaks.
//
// Visitors come from random addresses of helperapi.ProbeNetwork, which nobody out
// there has. The collector knows them before they come and keeps nothing of what
// is reported about them, so no test becomes an attack at the server.
package selftest

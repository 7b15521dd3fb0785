// Package host puts up a network of three machines on one: an attacker, a
// sensor host with a Docker engine of its own, and a server. Each is a network
// namespace; a fourth holds the bridge between them. Nothing is made in the
// machine's own namespace, and no packet leaves the lab: it has no way out.
//
// The engine runs in namespaces of its own for processes and mounts, too. The
// first process of such a namespace takes all others with it, and its mounts go
// with them, so that ending the lab leaves nothing whatever state it was in.
// Nothing is remembered in files for that: what belongs to the lab is found in
// the kernel, by the names of its namespaces.
package host

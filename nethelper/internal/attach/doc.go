// Package attach brings the network namespaces of services to the services
// bridge, through CNI. It is the only one that starts plug-ins.
//
// Invariants:
//   - A sandbox is proved before anything enters it: while a pidfd is held, the
//     process is of the named container, and its namespace is not the host's.
//   - Plug-ins get the namespace as a descriptor of the helper, so a pid that is
//     given to another process in between cannot matter.
//   - What is in a honeypot's namespace is never read again: the honeypot may
//     have put anything there. The host's end of the veth pair tells enough.
//   - No descriptor of a namespace outlives a call, so namespaces end with their
//     containers.
package attach

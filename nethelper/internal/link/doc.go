// Package link makes the services bridge with its gateway addresses, and lets
// packets pass between it and the sensor's interface.
//
// Whatever it changes on the host it first notes in the alias of the bridge, so
// the kernel itself remembers what was before: after a kill, or for another
// process that cleans up, the alias is all that is needed.
//
// Forwarding is switched on for the two interfaces only. The global switch
// would make the host a router between all of its interfaces.
//
// All functions work in the network namespace of the calling thread.
package link

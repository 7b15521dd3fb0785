// Package services makes the running containers of the sensor's Docker engine
// what the server wants: one honeypot for each assigned service.
//
// A honeypot has two containers. Its *sandbox* runs the pause program and holds
// the network namespace, which the helper attaches to the services bridge; the
// honeypot itself joins that namespace. So its interface is ready when it
// starts, a crash changes no rule, and its address stays over restarts. The
// sandbox must never be restarted, since the engine would give it a new
// namespace behind the honeypot's back: one that ended is replaced, and the
// honeypot with it. A service with raw network access has no sandbox and joins
// the sensor's own namespace.
//
// The order for a new service: image, sandbox, attachment without ports, honeypot,
// ports. Attackers are so led to it only when somebody answers.
//
// Invariants:
//   - The engine's state is the only truth about containers; each pass reads it
//     again, does what is missing and can be interrupted anywhere.
//   - Containers are found by their labels. Others are not touched, but for one
//     of the Python sensor that holds a name that is needed.
//   - Service ids are compared whole.
//   - One service's trouble stays its own: an image that cannot be fetched, a
//     honeypot that crashes, a port assigned twice, a sandbox that the helper
//     refuses.
//   - Until the wanted services are known, from the server or from the last run,
//     nothing is removed.
package services

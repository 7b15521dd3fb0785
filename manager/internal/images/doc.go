// Package images brings the images of services from the server's registry into
// the Docker engine that runs them.
//
// The engine has no network of its own and needs none: the manager fetches,
// through the same trust and proxy as everything else it says to the server,
// into a cache in the state directory, and hands the image over from there.
// Layers that the engine has already are neither fetched nor handed over; a layer
// that broke off goes on where it did.
//
// The cache outlives the engine's data: after a firmware update, whose engine
// starts with nothing, images come from it, with the server or without.
//
// What is in the engine is said by the engine alone: an image bears the name of its
// service image (under services.invalid) and the digest of its manifest (under
// manifests.invalid). No engine can ever ask a registry for names of that
// domain (RFC 6761).
//
// Invariants:
//   - Nothing is requested from any other place than the registry, redirects
//     and layers with addresses of their own are refused.
//   - Sizes are checked before anything is read: manifest, configuration,
//     number of layers, their sum, and what they unpack to.
//   - A floor of disk space stays free, for events: nothing is fetched that would
//     touch it, and the cache is given up when something else does.
//   - Every byte is covered by a digest that the manifest names; what the engine
//     made of it is compared with the image's configuration.
//   - An image appears in the engine whole or not at all, also after a power cut in
//     the middle of a load: the engine does not see to that, notes.go does.
//   - Images without a name of ours are never touched.
package images

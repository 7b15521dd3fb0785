// Package images brings the images of services from the server's registry into
// the Docker engine that runs them.
//
// The engine has no network of its own and needs none: the manager fetches,
// through the same trust and proxy as everything else it says to the server,
// and hands the image over as an archive while it still arrives. Layers that
// the engine has already are neither fetched nor handed over.
//
// What is in the engine is the only memory: an image bears the name of its
// service image (under services.invalid) and the digest of its manifest (under
// manifests.invalid). No engine can ever ask a registry for names of that
// domain (RFC 6761).
//
// Invariants:
//   - Nothing is requested from any other place than the registry, redirects
//     and layers with addresses of their own are refused.
//   - Sizes are checked before anything is read: manifest, configuration,
//     number of layers, their sum, and what they unpack to.
//   - Every byte is covered by a digest that the manifest names; what the engine
//     made of it is compared with the image's configuration.
//   - An image appears in the engine whole or not at all.
//   - Images without a name of ours are never touched.
package images

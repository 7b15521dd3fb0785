// Command runtime is the OCI runtime of the nested engine. It gives each honeypot
// a file system of its own, of a fixed size, and becomes runc.
//
// The engine keeps what containers write side by side in one directory, where
// one honeypot could fill the disk of the whole host. Its own limit, by the quotas
// of xfs, needs a host that has them. This one needs loop devices and ext4, which
// kernels of all distributions have.
//
// Before runc creates a container whose specification bounds the size of files
// (RLIMIT_FSIZE), three things are mounted:
//
//	containers/ID/files      an ext4 file system of that size, in the sparse file
//	                         containers/ID/files.img
//	overlay2/LAYER/merged    the file system of the container once more, which now
//	                         writes into files/upper
//	overlay2/LAYER/diff      files/upper, where the engine counts what was written
//
// All of it is in the data directory of the engine (data-root), and below what
// the engine removes with the container. Volumes that the image declares would
// be outside of the bound: they are left out, and their directories are ordinary
// ones. When the container has ended the file systems are unmounted; those of a
// sensor that was killed go with its mount namespace, and the loop devices with
// them.
package main

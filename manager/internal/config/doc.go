// Package config owns the configuration archive of the sensor, s<id>.tar.gz:
// it reads it, brings old ones up to date, gives its values out checked, takes
// over what the server sends later, and rewrites it without ever leaving half
// a file.
//
// The archive is a gzipped tar. Its member honeysens.cfg is INI text as
// Python's configparser writes it with allow_no_value; certificates and keys
// lie beside it and are named in the text. Format and names were measured on a
// HoneySens server 2.9.0.
//
// Invariants:
//   - An archive that was read and saved says the same to configparser.
//   - Update takes over a group of settings whole and valid, or not at all, so
//     that a wrong value at the server never costs a working setting.
//   - Save leaves the old file or the new one under the archive's name.
//
// It refuses archives that are too big, and members that are anything but
// regular files with a plain name: no paths, links or devices.
package config

// Package archive makes and reads service archives: what an operator uploads to
// a HoneySens server to offer a honeypot to the sensors.
//
// An archive is a tar, gzip or plain, with two members at top level:
// metadata.xml, which says what the service is, and service.tar, its image as
// `docker save` writes it. No Docker engine is needed for either direction. The
// same content makes the same bytes.
//
// Reading is strict: sizes are bounded, members that are not known are refused,
// and nothing is ever written to a name that the archive chose.
package archive

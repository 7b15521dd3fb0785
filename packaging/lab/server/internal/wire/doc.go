// Package wire reads what sensors send and writes what they get, with all the
// strictness and all the looseness of a HoneySens server 2.9.0, as measured.
//
// A request is refused in two ways, which a sensor must tell apart: ErrInvalid
// is a 400, found before anything is stored; *StoreError is a 500 that the
// database makes of values that passed. Either way nothing of a request is
// stored.
package wire

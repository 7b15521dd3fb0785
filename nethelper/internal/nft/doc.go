// Package nft puts the table of a sensor into the kernel, keeps it there and
// reads from it. It is the only user of nftables connections.
//
// Invariants:
//
//   - Apply is one transaction: the kernel has the old rules or the new ones,
//     never a part of them and never none. What packets have written into sets
//     and what counters have counted stays.
//   - Where the kernel can (6.9 and newer) the table belongs to the connection
//     that wrote it, so others cannot change or flush it, and it outlives a
//     killed helper until the next one adopts it.
//   - A change by others is put right within a second by Watch, and counted.
//   - After Remove nothing is left.
//
// Two limits of the kernel and of the library shape the code: a list of more
// than 2047 elements in one message is cut silently, and a receive buffer that
// overflows hides the outcome of a transaction that was committed. So elements
// go in small lists, and what arrived is counted afterwards.
package nft

// Package state is what the development server knows: sensors, services,
// firmware, events. It is kept in one directory: state.json is replaced as a
// whole with every change that an operator makes, events.jsonl grows by whole
// batches. What sensors say about themselves is kept in memory and written with
// the next change.
//
// Values that come out are copies. A Store is safe for concurrent use.
package state

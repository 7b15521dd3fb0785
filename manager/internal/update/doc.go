// Package update replaces the sensor by another revision of itself so that at
// no moment a failure, a kill or a power cut leaves the host without a sensor.
//
// Three take part. The *agent* in the serving manager fetches the firmware,
// verifies it and loads it into the host's engine. The *conductor*, a container
// of the old image that belongs to neither project, changes the operator's
// files, starts the new sensor beside the old one, says whose turn it is, and
// removes the one that has lost. The *new sensor* prepares all that it can while
// the old one serves, and serves when it is told so.
//
//	offered ─▶ downloaded ─▶ verified ─▶ loaded ─▶ started ─▶ trial ─▶ committed
//	   └───────────┴────────────┴─── refused ──┘       └────────┴──▶ rolled back
//
// Invariants:
//   - The journal in the state directory, which outlives all containers, says
//     what is done and whose turn it is. It is replaced atomically, before the
//     first effect of what it says.
//   - What the engine has made is on its disk before the journal says that it is
//     there: a power cut empties the files of an image that was just loaded.
//   - It has one writer at a time: the serving manager up to loaded, the
//     conductor up to the end, then the serving manager again.
//   - Each step can be repeated: whoever comes up goes on from the journal.
//   - Who serves holds the lock of the spool. The turn is given by the journal, and
//     taken only after the other one has let go, or was killed.
//   - Until committed the old project, its volumes and its image stay; the
//     operator's files have a copy beside the journal.
//   - A firmware that failed is remembered and not tried again by itself.
//
// What it trusts: the journal, which only the manager and root can write. A
// firmware is checked before anything of it is loaded, and only its image is
// used.
package update

package event

import "time"

// Record is an event as the sensor keeps it until the server has it.
type Record struct {
	// ID is given by the spool, and grows.
	ID uint64
	// Origin is the id of the service that the event came from, by the address
	// of its honeypot and not by what it says; empty for the sensor itself.
	Origin string
	// Received is when the sensor took it, by its own clock.
	Received time.Time
	// Event is the cleaned event as JSON.
	Event []byte
}

// Loss is a number of events that were acknowledged to honeypots and will not
// reach the server.
type Loss struct {
	// Why is for people.
	Why string `json:"why"`
	// Count is zero when nobody knows how many.
	Count uint64 `json:"count"`
	// From and To are when the first and the last of them were received, or
	// when the loss was found where that is not known.
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
}

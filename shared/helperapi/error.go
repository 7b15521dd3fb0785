package helperapi

// Kind classes the errors that cross the socket. The set is closed.
type Kind string

// The kinds of errors.
const (
	// KindInvalid: the request says something that cannot be. Repeating does
	// not help.
	KindInvalid Kind = "invalid"
	// KindDenied: the caller may not, or the sensor may not have that.
	KindDenied Kind = "denied"
	// KindConflict: the host has something else in that place.
	KindConflict Kind = "conflict"
	// KindUnavailable: not now; try again.
	KindUnavailable Kind = "unavailable"
	// KindUnknownOutcome: the change may or may not be in force; ask with GET.
	KindUnknownOutcome Kind = "unknown-outcome"
	// KindInternal: a fault of the helper. Its log says more.
	KindInternal Kind = "internal"
)

// Error is the body of every answer other than 200.
type Error struct {
	Kind    Kind   `json:"kind"`
	Message string `json:"message"`
}

// Error returns the message with its kind.
func (e *Error) Error() string { return string(e.Kind) + ": " + e.Message }

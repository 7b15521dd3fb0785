package control

import (
	"fmt"
	"time"
)

// SettingsState is a change of the server that could cut the sensor off and has
// not proved itself. It is zero when there is none.
type SettingsState struct {
	// State is "trial" while the change is in force for the time being, and
	// "refused" when it did not work and the settings before are in force.
	State string `json:"state,omitempty"`
	// Change is what the server wants to be different, without secrets.
	Change string `json:"change,omitempty"`
	// Reason is why the newest trial failed.
	Reason string `json:"reason,omitempty"`
	// Attempts counts the trials that failed.
	Attempts int `json:"attempts,omitempty"`
	// Until is the end of the trial, or the time of the next one.
	Until time.Time `json:"until,omitzero"`
}

// text tells a person what became of the change and what to do.
func (s SettingsState) text(now time.Time) string {
	left := s.Until.Sub(now).Round(time.Second)
	if s.State == "trial" {
		return fmt.Sprintf("on trial for %s more: %s", left, s.Change)
	}
	return fmt.Sprintf("refused: %s: %s; the ones before are in force, next try in %s; correct them at the server", s.Change, s.Reason, left)
}

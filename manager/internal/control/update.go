package control

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"
)

const (
	pathUpdate = "/v1/update"
	// maxOrder bounds the body of an order, in bytes.
	maxOrder = 16
)

// UpdateOrder is what an operator wants of updates.
type UpdateOrder string

// The orders.
const (
	// UpdateRetry forgets what failed, and lets updates begin again.
	UpdateRetry UpdateOrder = "retry"
	// UpdateHold keeps updates from beginning until a retry.
	UpdateHold UpdateOrder = "hold"
)

// UpdateState is how far an update is.
type UpdateState struct {
	// Phase is offered, downloaded, verified, loaded, started, trial, committed or
	// rolled back, or "" when there is no update.
	Phase    string `json:"phase,omitempty"`
	Revision string `json:"revision,omitempty"`
	// Side is "old" or "new": which of the two sensors this one is.
	Side  string    `json:"side,omitempty"`
	Since time.Time `json:"since,omitzero"`
	// Done and Total are the bytes of the download.
	Done  int64 `json:"done_bytes,omitempty"`
	Total int64 `json:"total_bytes,omitempty"`
	// Problem is what the update waits for.
	Problem string `json:"problem,omitempty"`
	// Hold tells that the operator wants no updates.
	Hold bool `json:"hold,omitempty"`
	// Refused is why the offered revision is not tried again.
	Refused string `json:"refused,omitempty"`
}

// text tells a person how far it is and what to do; "" when there is nothing to
// tell.
func (u UpdateState) text(now time.Time) string {
	switch {
	case u.Phase != "":
		text := fmt.Sprintf("to %s: %s for %s", u.Revision, u.Phase, ago(now, u.Since))
		if u.Phase == "offered" && u.Total > 0 {
			text += fmt.Sprintf(", %d of %d MB fetched", u.Done>>20, u.Total>>20)
		}
		if u.Side == "new" {
			text += ", this is the new sensor"
		}
		if u.Problem != "" {
			text += "; waits: " + u.Problem
		}
		return text
	case u.Refused != "":
		return u.Refused + "; `manager update retry` tries it again"
	case u.Hold:
		return "held back by the operator; `manager update retry` lets them begin"
	}
	return ""
}

// WriteText writes the state for a person in a terminal.
func (u UpdateState) WriteText(out io.Writer, now time.Time) error {
	text := u.text(now)
	if text == "" {
		text = "none"
	}
	_, err := fmt.Fprintln(out, "Update "+printable(text))
	return err
}

func (s *Server) update(w http.ResponseWriter, r *http.Request) {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxOrder))
	order := UpdateOrder(text)
	if err != nil || (order != UpdateRetry && order != UpdateHold) {
		http.Error(w, "want retry or hold", http.StatusBadRequest)
		return
	}
	if err := s.sensor.OrderUpdate(order); err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
	}
}

// OrderUpdate tells the running manager what to do about updates.
func (c *Client) OrderUpdate(ctx context.Context, order UpdateOrder) error {
	_, err := c.do(ctx, http.MethodPost, pathUpdate, []byte(order))
	return err
}

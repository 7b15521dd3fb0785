package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"go.uber.org/zap"
)

const (
	pathEvents = "/v1/events"
	pathRetry  = "/v1/events/retry"

	// MaxListed is how many events in quarantine are listed, and how many can be
	// named in a retry.
	MaxListed = 1000

	// maxRetry bounds the body of a retry, in bytes: MaxListed ids of 20 digits.
	maxRetry = 32 << 10
)

// EventList tells about events, and which ones were set aside.
type EventList struct {
	Counts EventsState `json:"counts"`
	// Quarantine is oldest first, and has MaxListed events at most.
	Quarantine []QuarantinedEvent `json:"quarantine"`
}

// QuarantinedEvent is one that the server refused for its content. What it says
// came from an attacker.
type QuarantinedEvent struct {
	ID uint64 `json:"id"`
	// Service is the id of the honeypot, or "" for the sensor itself.
	Service  string    `json:"service,omitempty"`
	Received time.Time `json:"received"`
	// Since is when it was set aside, Reason why.
	Since   time.Time `json:"since"`
	Reason  string    `json:"reason"`
	Source  string    `json:"source"`
	Summary string    `json:"summary"`
	// Bytes is the size of the whole event.
	Bytes int `json:"bytes"`
}

// Retry names the events in quarantine that go to the server again: some by
// their ids, or all.
type Retry struct {
	IDs []uint64 `json:"ids,omitempty"`
	All bool     `json:"all,omitempty"`
}

// Validate tells whether it is clear what to retry.
func (r Retry) Validate() error {
	switch {
	case r.All && len(r.IDs) > 0:
		return errors.New("retry wants either ids or all of them")
	case !r.All && len(r.IDs) == 0:
		return errors.New("retry wants the ids of events, or all of them")
	case len(r.IDs) > MaxListed:
		return fmt.Errorf("retry of %d events: name at most %d, or all of them", len(r.IDs), MaxListed)
	}
	return nil
}

// retried answers a Retry.
type retried struct {
	Events int `json:"events"`
}

// decodeRetry is strict: a misspelt field must not become a retry of others.
func decodeRetry(body io.Reader) (Retry, error) {
	var retry Retry
	in := json.NewDecoder(body)
	in.DisallowUnknownFields()
	if err := in.Decode(&retry); err != nil {
		return Retry{}, fmt.Errorf("read retry: %w", err)
	}
	if _, err := in.Token(); !errors.Is(err, io.EOF) {
		return Retry{}, errors.New("read retry: data after its end")
	}
	return retry, retry.Validate()
}

func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	list, err := s.sensor.Events(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	s.answer(w, list)
}

func (s *Server) retry(w http.ResponseWriter, r *http.Request) {
	retry, err := decodeRetry(http.MaxBytesReader(w, r.Body, maxRetry))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	n, err := s.sensor.RetryEvents(r.Context(), retry)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	s.log.Info("events leave the quarantine", zap.Int("events", n))
	s.answer(w, retried{Events: n})
}

// Events returns the counts and what was set aside.
func (c *Client) Events(ctx context.Context) (*EventList, error) {
	var list EventList
	if err := c.ask(ctx, http.MethodGet, pathEvents, nil, &list); err != nil {
		return nil, err
	}
	return &list, nil
}

// RetryEvents has the manager send events of the quarantine again. It returns
// how many these are; an id that is not there is none of them.
func (c *Client) RetryEvents(ctx context.Context, retry Retry) (int, error) {
	if err := retry.Validate(); err != nil {
		return 0, err
	}
	body, err := json.Marshal(retry)
	if err != nil {
		return 0, fmt.Errorf("encode retry: %w", err)
	}
	var answer retried
	err = c.ask(ctx, http.MethodPost, pathRetry, body, &answer)
	return answer.Events, err
}

// WriteText writes the events for a person in a terminal.
func (l *EventList) WriteText(out io.Writer, now time.Time) error {
	if _, err := fmt.Fprintln(out, printable(l.Counts.text(now))); err != nil {
		return err
	}
	if len(l.Quarantine) == 0 {
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "\nID\tSET ASIDE\tSERVICE\tSOURCE\tSUMMARY\tREASON")
	for _, e := range l.Quarantine {
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\n", e.ID, e.Since.UTC().Format(time.RFC3339),
			printable(e.Service), printable(e.Source), printable(e.Summary), printable(e.Reason))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if more := l.Counts.Quarantined - len(l.Quarantine); more > 0 {
		if _, err := fmt.Fprintf(out, "and %d more\n", more); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(out, "\nThey go to the server again by `manager events retry ID...`, or all by `manager events retry --all`.")
	return err
}

// printable makes text that somebody else chose safe for a terminal: what does
// not print becomes a question mark.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, text)
}

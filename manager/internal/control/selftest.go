package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"go.uber.org/zap"

	"honeysens.org/dockersensor/shared/unixsock"
)

const (
	pathSelfTest = "/v1/selftest"
	// testTimeout bounds a whole test: some seconds for each of 250 services.
	testTimeout = 30 * time.Minute
	// maxFinding bounds one line of the answer, in bytes.
	maxFinding = 64 << 10
)

// TestFinding is what a self-test found out about one service.
type TestFinding struct {
	// Service is its id, or "" when it is about what all need.
	Service string `json:"service,omitempty"`
	Label   string `json:"label,omitempty"`
	// Port is the one that was visited, as in 22/tcp.
	Port string `json:"port,omitempty"`
	// IPv6 tells whether it was visited by that.
	IPv6 bool `json:"ipv6,omitempty"`
	// Verdict is works, unproved, broken or skipped.
	Verdict string `json:"verdict"`
	// Part is where the way breaks: helper, interface, redirect, honeypot or
	// collector.
	Part string `json:"part,omitempty"`
	Text string `json:"text,omitempty"`
	// Seconds are from the visit to the report.
	Seconds float64 `json:"seconds,omitempty"`
}

// WriteText writes a finding for a person in a terminal.
func (f TestFinding) WriteText(w io.Writer) error {
	what := "sensor"
	if f.Service != "" {
		what = fmt.Sprintf("service %s %s", f.Service, f.Label)
	}
	if f.Port != "" {
		what += ", port " + f.Port
	}
	if f.IPv6 {
		what += " by IPv6"
	}
	verdict := f.Verdict
	if f.Part != "" {
		verdict += " at the " + f.Part
	}
	_, err := fmt.Fprintf(w, "%s: %s: %s\n", printable(what), verdict, printable(f.Text))
	return err
}

// testLine is one line of the answer: a finding, or the end.
type testLine struct {
	*TestFinding
	Done bool `json:"done,omitempty"`
	Good bool `json:"good,omitempty"`
}

// selfTest tells findings as they come.
func (s *Server) selfTest(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), testTimeout)
	defer cancel()
	out := http.NewResponseController(w)
	// The deadline for reading would end a handler that takes longer, too.
	end := time.Now().Add(testTimeout + timeout)
	if err := errors.Join(out.SetReadDeadline(end), out.SetWriteDeadline(end)); err != nil {
		s.log.Debug("long answer is not possible", zap.Error(err))
	}
	write := func(line testLine) {
		s.answer(w, line)
		if err := out.Flush(); err != nil {
			cancel()
		}
	}
	good := s.sensor.SelfTest(ctx, func(f TestFinding) { write(testLine{TestFinding: &f}) })
	write(testLine{Done: true, Good: good})
}

// SelfTest has the manager test the sensor, and tells whether it is good. tell
// hears findings as they come.
func (c *Client) SelfTest(ctx context.Context, tell func(TestFinding) error) (bool, error) {
	req, err := newRequest(ctx, http.MethodPost, pathSelfTest, nil)
	if err != nil {
		return false, err
	}
	resp, err := unixsock.Client(c.path, testTimeout+timeout).Do(req)
	if err != nil {
		return false, c.explain(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		reason, _ := io.ReadAll(io.LimitReader(resp.Body, maxFinding))
		return false, fmt.Errorf("the manager refuses: %.1000s", reason)
	}
	for lines := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)); ; {
		var line testLine
		if err := lines.Decode(&line); err != nil {
			return false, fmt.Errorf("the test broke off: %w", err)
		}
		if line.Done {
			return line.Good, nil
		}
		if line.TestFinding == nil {
			continue
		}
		if err := tell(*line.TestFinding); err != nil {
			return false, err
		}
	}
}

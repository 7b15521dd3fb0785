// Package demo is `make demo`: it attacks a deployed sensor in every way that
// the lab knows and shows the events as they reach the server.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"honeysens.org/dockersensor/packaging/lab/admin"
	"honeysens.org/dockersensor/packaging/lab/scenario"
	"honeysens.org/dockersensor/shared/event"
)

// Limits of the demo, generous for a small machine.
const (
	readyWithin  = 5 * time.Minute
	arriveWithin = 90 * time.Second
)

// result is what became of an attack.
type result struct {
	attack scenario.Attack
	err    error
	event  *admin.Event
}

// Run puts everything up, attacks and tells. It returns an error when an attack
// did not arrive as an event; the lab stays up either way.
func Run(ctx context.Context, s *scenario.Scenario, out io.Writer) error {
	if err := prepare(ctx, s); err != nil {
		return err
	}
	attacks, err := s.Attacks(ctx)
	if err != nil {
		return err
	}
	results := attack(ctx, attacks, out)
	if err := watch(ctx, s.Server, results, out); err != nil {
		return err
	}
	return summarize(results, out)
}

// prepare returns when the sensor serves.
func prepare(ctx context.Context, s *scenario.Scenario) error {
	if err := s.Up(ctx); err != nil {
		return err
	}
	if err := s.Assign(ctx); err != nil {
		return err
	}
	if err := s.Deploy(ctx, nil); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	return s.Ready(ctx, time.Time{}, s.Recon.ID, s.Honeypot.ID)
}

func attack(ctx context.Context, attacks []scenario.Attack, out io.Writer) []*result {
	results := make([]*result, 0, len(attacks))
	for _, a := range attacks {
		fmt.Fprintf(out, "attack  %-45s from %s\n", a.Name, a.Source)
		r := &result{attack: a, err: a.Do(ctx)}
		if r.err != nil {
			fmt.Fprintf(out, "        the attacker noticed: %v\n", r.err)
		}
		results = append(results, r)
	}
	return results
}

// watch shows events until each attack has its own, or time is up.
func watch(ctx context.Context, server *admin.Client, results []*result, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, arriveWithin)
	defer cancel()
	for since := int64(0); missing(results) > 0 && ctx.Err() == nil; {
		events, err := server.Events(ctx, since, 5*time.Second)
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("read events: %w", err)
		}
		for _, e := range events {
			since = max(since, e.ID)
			show(&e, out)
			claim(results, e)
		}
	}
	return nil
}

func show(e *admin.Event, out io.Writer) {
	what := fmt.Sprintf("%d packets", len(e.Packets))
	if len(e.Packets) == 1 {
		what = fmt.Sprintf("%s port %d", protocol(e.Packets[0].Protocol), e.Packets[0].Port)
	}
	fmt.Fprintf(out, "event   %-20s %-30s %s\n", e.Source, e.Summary, what)
}

func protocol(number int) string {
	switch number {
	case event.ProtocolTCP:
		return "TCP"
	case event.ProtocolUDP:
		return "UDP"
	}
	return "unknown"
}

func claim(results []*result, e admin.Event) {
	for _, r := range results {
		if r.event == nil && r.attack.Match(e) {
			r.event = &e
			return
		}
	}
}

func missing(results []*result) int {
	n := 0
	for _, r := range results {
		if r.event == nil {
			n++
		}
	}
	return n
}

func summarize(results []*result, out io.Writer) error {
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "ATTACK\tSOURCE\tEVENT")
	for _, r := range results {
		text := "missing"
		if r.event != nil {
			text = fmt.Sprintf("#%d %s", r.event.ID, r.event.Summary)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", r.attack.Name, r.attack.Source, text)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(out, "\nThe lab stays up: `make demo-page` shows it in a browser, `make demo-down` takes it away.")
	arrived := len(results) - missing(results)
	fmt.Fprintf(out, "demo: %d/%d attacks arrived as events\n", arrived, len(results))
	if arrived < len(results) {
		return errors.New("some attacks are missing; the lab is up for a look: the logs are in its directory, `make demo-down` removes it")
	}
	return nil
}

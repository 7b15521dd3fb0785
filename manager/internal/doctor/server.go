package doctor

import (
	"context"
	"errors"
	"time"

	"honeysens.org/dockersensor/manager/internal/hsapi"
)

// tellOffset is from which difference of the clocks on a person hears of it.
const tellOffset = 2 * time.Second

// stages lead to the server, each past the one before.
var stages = [...]struct{ check, passed string }{
	{"server name", "it is resolved"},
	{"server route", "a connection can be made"},
	{"server certificate", "it is the one that the configuration trusts"},
	{"clock", "the server accepts this host's time"},
	{"server access", "the server knows the sensor and its secret"},
	{"server answer", "it is one of a HoneySens server"},
}

// failedStage is where a request came to its end, and how many stages were
// surely passed before.
func failedStage(class hsapi.Class) (check string, passed int) {
	switch class {
	case hsapi.ClassName:
		return stages[0].check, 0
	case hsapi.ClassRoute:
		return stages[1].check, 1
	case hsapi.ClassProxy:
		return "proxy", 0
	case hsapi.ClassTLS:
		return stages[2].check, 2
	case hsapi.ClassClock:
		// A clock that is far off shows at the certificate already.
		return stages[3].check, 2
	case hsapi.ClassAuth, hsapi.ClassRejected, hsapi.ClassUnknown:
		return stages[4].check, 3
	default:
		return stages[5].check, 3
	}
}

// examineServer tells how far the way to the server leads: as the running
// manager has seen it, or else by a request that changes nothing.
func (d *Doctor) examineServer(ctx context.Context) {
	switch {
	case d.running != nil:
		d.judgePolls()
	case d.settings == nil:
		d.skip("server", "without a valid configuration nobody knows where it is")
	default:
		d.askServer(ctx)
	}
}

func (d *Doctor) judgePolls() {
	server := d.running.Server
	switch {
	case server.Error != "":
		// The advice is in the text already.
		d.reached(server.Class, server.Error, "")
	case server.LastPoll.IsZero():
		d.note("server", "ask again in a moment", "no poll of %s has come to an end yet", server.Address)
	default:
		d.ok("server", "%s (%s) took a poll %s ago, %s", server.Address, server.Name, time.Since(server.LastPoll).Round(time.Second), server.Route)
	}
	if refused := d.running.RefusedChange; refused != "" {
		d.note("settings", "correct the sensor's settings at the server", "those of the server did not work, the ones before are in force: %s", refused)
	}
	if offset := server.ClockOffset; offset.Abs() >= tellOffset {
		d.note("clock", "set this host's clock, by NTP at best", "the server's differs by %s; the sensor signs with the server's time", offset.Round(time.Second))
	}
}

func (d *Doctor) askServer(ctx context.Context) {
	// Less than the context allows, so that the client says what it waited for.
	patience := d.cfg.Patience / 5 * 4
	client := hsapi.New(hsapi.Config{Timeout: patience, Stall: patience}, *d.settings)
	defer client.Close()
	err := client.Probe(ctx)
	var failed *hsapi.Error
	switch {
	case err == nil:
		d.passed(len(stages))
		d.ok("server", "%s (%s), %s", client.Address(), d.settings.Server.Name, client.Route())
	case errors.As(err, &failed):
		text := failed.Problem
		if failed.Err != nil {
			text += " (" + cut(failed.Err.Error()) + ")"
		}
		d.reached(failed.Class, client.Address()+": "+text, failed.Advice)
	default:
		d.problem("server route", "check the route to the server, and firewalls on the way", "%s does not answer: %v", client.Address(), err)
	}
}

// reached tells which stages were passed and which was the last.
func (d *Doctor) reached(class hsapi.Class, text, advice string) {
	check, passed := failedStage(class)
	d.passed(passed)
	d.problem(check, advice, "%s", text)
}

func (d *Doctor) passed(n int) {
	for _, stage := range stages[:n] {
		d.ok(stage.check, "%s", stage.passed)
	}
}

// cut bounds text that a server may have chosen, in bytes.
func cut(text string) string { return text[:min(len(text), 300)] }

// examineServices tells which honeypots do not run.
func (d *Doctor) examineServices(context.Context) {
	const check = "services"
	if d.running == nil || d.running.Server.LastPoll.IsZero() && len(d.running.Services) == 0 {
		return // Nobody knows yet what is assigned.
	}
	running := 0
	for _, s := range d.running.Services {
		switch s.State {
		case "running":
			running++
		case "scheduled":
			d.note(check, "", "%s %s is being started: %s", s.ID, s.Label, s.Reason)
		default:
			d.problem(check, "look into the log (docker compose logs sensor)", "%s %s: %s", s.ID, s.Label, s.Reason)
		}
	}
	if len(d.running.Services) == 0 {
		d.note(check, "assign services to the sensor at the server", "none is assigned")
		return
	}
	if running == 0 {
		return
	}
	d.ok(check, "%d of %d run", running, len(d.running.Services))
}

// examineEvents tells whether events get through.
func (d *Doctor) examineEvents(context.Context) {
	if d.running == nil {
		return
	}
	if text := d.running.CollectorError; text != "" {
		d.problem("collector", "end the program that uses its address, or look into the log (docker compose logs sensor)", "honeypots cannot report: %s", text)
	}
	events := d.running.Events
	if events.Error != "" {
		d.problem("events", "check server and disk as above; events wait until then", "%d wait: %s", events.Waiting, events.Error)
	} else {
		d.ok("events", "%d wait, %d were sent", events.Waiting, events.Sent)
	}
	if events.Quarantined > 0 {
		d.note("events", "`manager events` lists them with the server's reasons", "%d are in quarantine", events.Quarantined)
	}
	if events.Lost > 0 {
		d.note("events", "more disk space, or a server that is away for less long, prevents it", "%d were lost; the server is told", events.Lost)
	}
}

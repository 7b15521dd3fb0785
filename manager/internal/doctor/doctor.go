package doctor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"honeysens.org/dockersensor/manager/internal/config"
)

// Level tells how much a finding matters.
type Level string

// The levels.
const (
	// OK is as it should be.
	OK Level = "ok"
	// Note is worth knowing; the sensor works all the same.
	Note Level = "note"
	// Problem keeps the sensor, or a part of it, from working.
	Problem Level = "problem"
	// Skipped could not be examined, or not yet.
	Skipped Level = "skipped"
)

// Finding is the outcome of one examination.
type Finding struct {
	// Check names what was examined.
	Check string `json:"check"`
	Level Level  `json:"level"`
	// Text is what was found, Advice what to do, or "".
	Text   string `json:"finding"`
	Advice string `json:"advice,omitempty"`
}

// Report is all findings, in the order in which to deal with them.
type Report struct {
	Findings []Finding `json:"findings"`
	Problems int       `json:"problems"`
}

// Config says where everything is.
type Config struct {
	// Before is set before the sensor is started: helper, nested engine and
	// manager are not expected yet.
	Before bool
	// Archive is the configuration archive, or a directory that holds it.
	Archive string
	// Interface is the one that attackers reach. When it is empty a running
	// manager's is taken.
	Interface string
	// StateDir and DeployDir are the directories of events and of the compose file.
	StateDir, DeployDir string
	// The sockets of nested engine and host's engine.
	DockerSocket, HostDockerSocket string
	// Root is where /proc and /sys are: "/" when "".
	Root string
	// Patience is the longest that one examination takes: 15 seconds when 0.
	Patience time.Duration
}

// Doctor examines one sensor.
type Doctor struct {
	cfg     Config
	manager Manager
	helper  Helper

	// What one examination found out for the next ones: settings is nil when
	// the archive is unusable, running when no manager answers.
	settings *config.Settings
	running  *Running
	findings []Finding
}

// New returns a doctor who has looked at nothing yet. Manager and helper need not
// run.
func New(cfg Config, manager Manager, helper Helper) *Doctor {
	if cfg.Root == "" {
		cfg.Root = "/"
	}
	if cfg.Patience == 0 {
		cfg.Patience = 15 * time.Second
	}
	return &Doctor{cfg: cfg, manager: manager, helper: helper}
}

// Examine looks at everything. It does not fail: what goes wrong is a finding.
func (d *Doctor) Examine(ctx context.Context) Report {
	d.findings = nil
	for _, examine := range []func(context.Context){
		d.examineManager, d.examineArchive,
		d.examineKernel, d.examineFeatures, d.examineMemory, d.examineCgroups, d.examineState,
		d.examineInterface, d.examinePorts, d.examineHelper,
		d.examineEngine, d.examineHostEngine, d.examineDeployment,
		d.examineNames, d.examineServer, d.examineServices, d.examineEvents,
	} {
		limited, cancel := context.WithTimeout(ctx, d.cfg.Patience)
		examine(limited)
		cancel()
	}
	report := Report{Findings: d.findings}
	for _, f := range report.Findings {
		if f.Level == Problem {
			report.Problems++
		}
	}
	return report
}

func (d *Doctor) add(level Level, check, advice, format string, args ...any) {
	d.findings = append(d.findings, Finding{Check: check, Level: level, Text: fmt.Sprintf(format, args...), Advice: advice})
}

func (d *Doctor) ok(check, format string, args ...any) { d.add(OK, check, "", format, args...) }

func (d *Doctor) skip(check, format string, args ...any) { d.add(Skipped, check, "", format, args...) }

func (d *Doctor) note(check, advice, format string, args ...any) {
	d.add(Note, check, advice, format, args...)
}

func (d *Doctor) problem(check, advice, format string, args ...any) {
	d.add(Problem, check, advice, format, args...)
}

// notYet skips what is there only when the sensor runs.
func (d *Doctor) notYet(check string) bool {
	if d.cfg.Before {
		d.skip(check, "the sensor is not started yet")
	}
	return d.cfg.Before
}

// examineManager asks the running manager for all that it knows.
func (d *Doctor) examineManager(ctx context.Context) {
	if d.notYet("manager") {
		return
	}
	running, err := d.manager.Ask(ctx)
	if err != nil {
		d.problem("manager", "look into the log (docker compose logs sensor); before the first start, use --before", "%v", err)
		return
	}
	d.running = running
	d.ok("manager", "runs version %s since %s", running.Version, running.Started.UTC().Format(time.RFC3339))
}

func (d *Doctor) examineArchive(context.Context) {
	archive, notes, err := config.Open(d.cfg.Archive)
	if err != nil {
		d.problem("configuration", "copy the archive s<id>.tar.gz of this sensor from the server into conf/", "%v", err)
		return
	}
	settings, err := archive.Settings()
	if err != nil {
		d.problem("configuration", "correct the settings at the server and download the configuration again", "%v", err)
		return
	}
	d.settings = &settings
	d.ok("configuration", "%s is valid: sensor %s (id %s) of server %s", archive.Path(), settings.Sensor.Hostname, settings.Sensor.ID, settings.Server.Name)
	if len(notes) > 0 && d.running == nil {
		d.note("configuration", "", "it is of an earlier release and will be brought up to date when the sensor starts")
	}
}

// Err is not nil when there are problems.
func (r *Report) Err() error {
	switch r.Problems {
	case 0:
		return nil
	case 1:
		return errors.New("one problem was found")
	}
	return fmt.Errorf("%d problems were found", r.Problems)
}

// WriteText writes the report as a table for a terminal.
func (r *Report) WriteText(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "CHECK\tRESULT\tFINDING")
	for _, f := range r.Findings {
		fmt.Fprintf(w, "%s\t%s\t%s\n", f.Check, f.Level, printable(f.Text))
		if f.Advice != "" {
			fmt.Fprintf(w, "\t\t-> %s\n", printable(f.Advice))
		}
	}
	return w.Flush()
}

// printable makes text that somebody else chose safe for a terminal.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, text)
}

package update

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"
)

// Engine is what the conductor needs of the host's engine. Host has it.
type Engine interface {
	Sensor(ctx context.Context, project string, d Deployment) (State, error)
	Start(ctx context.Context, id string) error
	Stop(ctx context.Context, id string) error
	Kill(ctx context.Context, id string) error
	RemoveProject(ctx context.Context, project string, d Deployment) error
	RemoveImage(ctx context.Context, id string) error
	HasImage(ctx context.Context, id string) (bool, error)
	// Flush waits until the disk has what the engine has written.
	Flush() error
}

// Programs are those that the conductor starts. Tools has them.
type Programs interface {
	Up(ctx context.Context, d Deployment, project, previous string, all bool) error
	CleanUp(ctx context.Context, container string) error
}

// Times of the conductor.
const (
	// look is how often it looks.
	look = 200 * time.Millisecond
	// letGo is how long a sensor that has lost its turn may take to let go.
	letGo = 20 * time.Second
	// absence is how long the new sensor's container may be down: the engine starts
	// it again.
	absence = 20 * time.Second
	// maxRestarts is from which number of restarts on it is not waited for.
	maxRestarts = 3
	// maxStarts is how often the conductor may come up in one update.
	maxStarts = 4
	// steady is how long a sensor that knows nothing of hand-overs has to run.
	steady = time.Minute
	// again is the pause after an error of the engine, composeTries how often
	// compose is tried.
	again        = 2 * time.Second
	composeTries = 3
	// comeBack is how long the old sensor may take to serve again before the
	// update ends without that.
	comeBack = 2 * time.Minute
)

// Conductor takes an update from loaded to its end.
type Conductor struct {
	journal  *Journal
	engine   Engine
	programs Programs
	log      *zap.Logger
	// now and sleep are the clock, step is told what comes next: a kill or a power
	// cut is possible there. Tests have their own.
	now   func() time.Time
	sleep func(ctx context.Context, d time.Duration)
	step  func(string)

	// These are of one phase: since when it is, since when the new sensor's
	// container is up or down, and at which of its starts.
	since    time.Time
	upFrom   time.Time
	downFrom time.Time
	restarts int
	failures int
	changed  bool
}

// NewConductor returns one for the journal's update.
func NewConductor(journal *Journal, engine Engine, programs Programs, log *zap.Logger) *Conductor {
	return &Conductor{journal: journal, engine: engine, programs: programs, log: log, now: time.Now, sleep: sleep, step: func(string) {}}
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// Run returns when the update has ended, or with ctx.
func (c *Conductor) Run(ctx context.Context) error {
	if err := c.resume(); err != nil {
		return err
	}
	phase := Phase("")
	for ctx.Err() == nil {
		r, err := c.journal.Read()
		if err != nil {
			return err
		}
		if !r.Conducted() {
			return nil
		}
		if r.Phase != phase {
			phase = r.Phase
			c.since, c.upFrom, c.downFrom, c.failures, c.changed = c.now(), time.Time{}, time.Time{}, 0, false
			c.log.Info("update", zap.String("phase", string(r.Phase)), zap.String("revision", r.Offer.Revision), zap.String("reason", r.Reason))
		}
		pause := look
		if err := c.advance(ctx, r); err != nil && ctx.Err() == nil {
			c.log.Warn("update cannot go on at the moment", zap.String("phase", string(r.Phase)), zap.Error(err))
			pause = again
		}
		c.sleep(ctx, pause)
	}
	return ctx.Err()
}

// resume goes on after a kill or a power cut: the phase gets its time anew, but
// not for ever, since the new sensor may be the cause.
func (c *Conductor) resume() error {
	r, err := c.journal.Read()
	if err != nil || !r.Conducted() {
		return err
	}
	r.Starts++
	limit := comeBack
	switch r.Phase {
	case Started:
		limit = r.Limits.Prepare
	case Trial:
		limit = r.Limits.Trial
	case Offered, Downloaded, Verified, Loaded, Committed, RolledBack:
	}
	if r.Starts > maxStarts && (r.Phase == Started || r.Phase == Trial) {
		return c.fail(r, "the host or its engine was started %d times during the update", r.Starts-1)
	}
	return c.enter(r, r.Phase, limit)
}

// advance does one step of the phase.
func (c *Conductor) advance(ctx context.Context, r *Record) error {
	switch r.Phase {
	case Loaded:
		return c.begin(r)
	case Started:
		return c.prepare(ctx, r)
	case Trial:
		return c.try(ctx, r)
	case Committed:
		return c.commit(ctx, r)
	case RolledBack:
		return c.rollBack(ctx, r)
	case Offered, Downloaded, Verified:
	}
	return nil
}

// enter writes the next phase, which ends after a time.
func (c *Conductor) enter(r *Record, phase Phase, limit time.Duration) error {
	c.step("enter " + string(phase))
	r.Phase, r.Deadline = phase, c.now().Add(limit).UTC().Round(0)
	return c.journal.Write(r)
}

// fail ends the update badly.
func (c *Conductor) fail(r *Record, format string, args ...any) error {
	r.Reason = fmt.Sprintf(format, args...)
	c.log.Error("update failed", zap.String("revision", r.Offer.Revision), zap.String("reason", r.Reason))
	return c.enter(r, RolledBack, comeBack)
}

// begin keeps copies of the operator's files before anything is changed.
func (c *Conductor) begin(r *Record) error {
	c.step("keep copies")
	if err := c.files(r).keep(); err != nil {
		return c.fail(r, "the deployment's files cannot be kept: %v", err)
	}
	return c.enter(r, Started, r.Limits.Prepare)
}

// prepare starts the new sensor and waits until it could serve.
func (c *Conductor) prepare(ctx context.Context, r *Record) error {
	if !c.changed {
		c.step("change files")
		if err := c.files(r).change(r); err != nil {
			return c.fail(r, "the deployment's files cannot be changed: %v", err)
		}
		c.changed = true
	}
	if !r.Beside {
		return c.enter(r, Trial, r.Limits.Trial)
	}
	state, err := c.up(ctx, r)
	if err != nil || state.ID == "" {
		return err
	}
	report, err := c.journal.Heard(New)
	if err != nil {
		return err
	}
	if report.Prepared {
		return c.enter(r, Trial, r.Limits.Trial)
	}
	if c.overdue(r, r.Limits.Prepare) {
		return c.fail(r, "revision %s did not get ready within %s: %s", r.Offer.Revision, r.Limits.Prepare, said(report))
	}
	return nil
}

// overdue tells whether the phase has lasted too long. The clock may have been
// set: a deadline that is farther away than the limit is none.
func (c *Conductor) overdue(r *Record, limit time.Duration) bool {
	left := r.Deadline.Sub(c.now())
	return left <= 0 || left > limit+time.Minute
}

func said(r Report) string {
	if r.Problem == "" {
		return "it says nothing of itself"
	}
	return r.Problem
}

// up sees to it that the new sensor runs. Its state has no id as long as it does
// not; when it will not, the update has failed.
func (c *Conductor) up(ctx context.Context, r *Record) (State, error) {
	state, err := c.engine.Sensor(ctx, r.To.Project, r.Deployment)
	if err != nil {
		return State{}, err
	}
	if state.ID == "" {
		return State{}, c.compose(ctx, r)
	}
	if state.ID != r.To.Container {
		r.To.Container = state.ID
		c.step("note container")
		if err := c.journal.Write(r); err != nil {
			return State{}, err
		}
	}
	if !state.Running {
		c.upFrom = time.Time{}
	}
	switch {
	case state.Restarts >= maxRestarts:
		return State{}, c.fail(r, "revision %s ends again and again, the last time with code %d", r.Offer.Revision, state.ExitCode)
	case state.Running:
		if c.upFrom.IsZero() || c.restarts != state.Restarts {
			c.upFrom, c.restarts = c.now(), state.Restarts
		}
		c.downFrom = time.Time{}
		return state, nil
	case c.failures > 0:
		// Compose has made it, and it never ran.
		return State{}, c.compose(ctx, r)
	case c.downFrom.IsZero():
		c.downFrom = c.now()
	case c.now().Sub(c.downFrom) > absence:
		return State{}, c.fail(r, "revision %s has ended with code %d and does not come back", r.Offer.Revision, state.ExitCode)
	}
	return State{}, nil
}

func (c *Conductor) compose(ctx context.Context, r *Record) error {
	c.step("compose up")
	err := c.programs.Up(ctx, r.Deployment, r.To.Project, r.From.Project, false)
	if err == nil {
		return nil
	}
	if c.failures++; c.failures < composeTries {
		return err
	}
	// Another sensor's failed update removes its image, and so do operators who
	// tidy up.
	there, lookErr := c.engine.HasImage(ctx, r.To.Image)
	if lookErr != nil {
		return lookErr
	}
	if r.Lost = !there; r.Lost {
		return c.fail(r, "the image of revision %s was removed from the host's engine before it was started", r.Offer.Revision)
	}
	return c.fail(r, "compose cannot start revision %s: %v", r.Offer.Revision, err)
}

// try watches the new sensor while it is its turn.
func (c *Conductor) try(ctx context.Context, r *Record) error {
	if c.overdue(r, r.Limits.Trial) {
		report, err := c.journal.Heard(New)
		if err != nil {
			return err
		}
		return c.fail(r, "revision %s did not prove itself within %s: %s", r.Offer.Revision, r.Limits.Trial, said(report))
	}
	if released, err := c.released(ctx, r, Old); err != nil || !released {
		return err
	}
	state, err := c.up(ctx, r)
	if err != nil || state.ID == "" {
		return err
	}
	if !r.Firmware.Handover {
		return c.tryForeign(ctx, r)
	}
	report, err := c.journal.Heard(New)
	if err != nil {
		return err
	}
	if report.Serving && report.Proof.Missing(r.Worked) == "" {
		return c.stay(r)
	}
	return nil
}

// stay commits, once the disks have all that the new sensor has made: what the old
// one had goes.
func (c *Conductor) stay(r *Record) error {
	c.step("flush")
	if err := c.engine.Flush(); err != nil {
		return err
	}
	return c.enter(r, Committed, 0)
}

// tryForeign judges a sensor that does not report: it stays when it has run for
// some time without an end.
func (c *Conductor) tryForeign(_ context.Context, r *Record) error {
	if c.now().Sub(c.upFrom) < min(steady, r.Limits.Trial/2) {
		return nil
	}
	return c.stay(r)
}

// released sees to it that a sensor has let go of spool and network: by itself,
// or else by force. Where both cannot run its container ends, too.
func (c *Conductor) released(ctx context.Context, r *Record, side Side) (bool, error) {
	project := r.From.Project
	if side == New {
		project = r.To.Project
	}
	state, err := c.engine.Sensor(ctx, project, r.Deployment)
	if err != nil {
		return false, err
	}
	if !state.Running {
		return true, c.cleanUp(ctx, r, state.ID)
	}
	report, err := c.journal.Heard(side)
	if err != nil {
		return false, err
	}
	switch {
	case report.Idle && r.Beside:
		return true, nil
	case report.Idle, side == New && !r.Firmware.Handover:
		c.step("stop " + string(side))
		return false, c.engine.Stop(ctx, state.ID)
	case c.now().Sub(c.since) < letGo:
		return false, nil
	}
	c.log.Warn("a sensor does not let go and is killed", zap.String("side", string(side)))
	c.step("kill " + string(side))
	return false, c.engine.Kill(ctx, state.ID)
}

// cleanUp removes what a sensor that does not run may have left in the host's
// network. What a running sensor has, it takes away itself.
func (c *Conductor) cleanUp(ctx context.Context, r *Record, container string) error {
	if !r.Deployment.HostNetwork || container == "" {
		return nil
	}
	c.step("clean up network")
	return c.programs.CleanUp(ctx, container)
}

// commit removes the old sensor.
func (c *Conductor) commit(ctx context.Context, r *Record) error {
	c.step("remove old project")
	if err := c.engine.RemoveProject(ctx, r.From.Project, r.Deployment); err != nil {
		return err
	}
	c.step("start other services")
	if err := c.programs.Up(ctx, r.Deployment, r.To.Project, r.From.Project, true); err != nil {
		c.log.Warn("other services of the compose file are not started", zap.Error(err))
	}
	c.step("forget copies")
	if err := c.files(r).forget(); err != nil {
		return err
	}
	return c.end(r)
}

// rollBack gives the turn back to the old sensor and removes the new one.
func (c *Conductor) rollBack(ctx context.Context, r *Record) error {
	if released, err := c.released(ctx, r, New); err != nil || !released {
		return err
	}
	c.step("restore files")
	if err := c.files(r).restore(); err != nil {
		return err
	}
	if !r.Beside {
		// Both cannot run: the new one goes first.
		c.step("remove new project")
		if err := c.engine.RemoveProject(ctx, r.To.Project, r.Deployment); err != nil {
			return err
		}
	}
	serving, err := c.revive(ctx, r)
	if err != nil {
		return err
	}
	if !serving && !c.overdue(r, comeBack) {
		return nil
	}
	c.step("remove new project")
	if err := c.engine.RemoveProject(ctx, r.To.Project, r.Deployment); err != nil {
		return err
	}
	c.step("remove new image")
	if err := c.engine.RemoveImage(ctx, r.To.Image); err != nil {
		c.log.Warn("image of the failed update stays", zap.Error(err))
	}
	c.step("forget copies")
	if err := c.files(r).forget(); err != nil {
		return err
	}
	return c.end(r)
}

// revive sees to it that the old sensor runs, and tells whether it serves.
func (c *Conductor) revive(ctx context.Context, r *Record) (bool, error) {
	state, err := c.engine.Sensor(ctx, r.From.Project, r.Deployment)
	if err != nil {
		return false, err
	}
	switch {
	case state.ID == "":
		c.step("compose up old")
		return false, c.programs.Up(ctx, r.Deployment, r.From.Project, "", false)
	case !state.Running:
		c.step("start old")
		return false, c.engine.Start(ctx, state.ID)
	}
	report, err := c.journal.Heard(Old)
	return report.Serving, err
}

// end leaves the record to the sensor that serves.
func (c *Conductor) end(r *Record) error {
	c.step("end")
	r.Done = true
	return c.journal.Write(r)
}

func (c *Conductor) files(r *Record) files { return newFiles(c.journal.Dir(), r.Deployment) }

package update

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"reflect"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Server fetches firmware.
type Server interface {
	GetFirmware(ctx context.Context, uri string, offset int64, w io.Writer) (size int64, err error)
}

// Loader is what the agent needs of the host's engine. Host has it.
type Loader interface {
	Self(ctx context.Context) (Sensor, Deployment, error)
	Load(ctx context.Context, name string, layers []string, archive io.Reader) (id string, err error)
	Spawn(ctx context.Context, r *Record) error
	Dismiss(ctx context.Context, dir string) error
	RemoveImage(ctx context.Context, id string) error
	RemoveProject(ctx context.Context, project string, d Deployment) error
}

// Parts are what an agent works with.
type Parts struct {
	Server Server
	Host   Loader
	// Notice tells the server about an update, as an event of the sensor itself.
	Notice func(ctx context.Context, summary, detail string) error
	// Worked finds out what works now, which may take a minute; Proof says what has
	// worked since this manager serves.
	Worked func(ctx context.Context) Worked
	Proof  func() Proof
}

// Config of an agent.
type Config struct {
	// Revision is that of this sensor.
	Revision string
	// DeployDir may hold a public key.
	DeployDir string
	// Previous is the compose project that this sensor replaces, "" for none.
	Previous string
	// Rate limits downloads, in bytes a second; 0 for none.
	Rate   int64
	Limits Limits
}

// Times of the agent.
const (
	// idle is how often it looks while nothing is to be done, busy while the
	// conductor has the say.
	idle = time.Minute
	busy = 100 * time.Millisecond
	// attendEvery is how often the conductor is looked after.
	// firstRetry is the pause after an error of the server or the engine; it
	// doubles up to lastRetry.
	attendEvery = 10 * time.Second
	firstRetry  = 5 * time.Second
	lastRetry   = 10 * time.Minute
)

// ErrTurn says that it is the other sensor's turn.
var ErrTurn = errors.New("it is the other sensor's turn")

// Agent works in the manager that serves.
type Agent struct {
	cfg     Config
	journal *Journal
	parts   Parts
	log     *zap.Logger
	wake    chan struct{}

	// looked is set when the journal was read for the first time, interrupted when
	// a load may have been under way then.
	looked, interrupted bool
	// failures counts errors in a row.
	failures int
	// attended is when the conductor was looked after.
	attended time.Time
	// told is the newest report, announced is set when the server was told of the
	// trial.
	told      Report
	announced bool
	// retired is set when the project before this one is gone.
	retired bool

	mu    sync.Mutex
	offer Offer
	state Status
}

// Status is what there is to say about updates.
type Status struct {
	// Phase is "" when there is none.
	Phase    Phase
	Revision string
	// Side is which of the two sensors this one is, "" before there are two.
	Side Side
	// Done and Total are the bytes of the download.
	Done, Total int64
	// Problem is what it waits for, Since when the phase began.
	Problem string
	Since   time.Time
	Hold    bool
	// Refused is why the revision that the server offers is not tried, or "".
	Refused string
}

// NewAgent returns an agent for one life of a manager that serves.
func NewAgent(cfg Config, journal *Journal, parts Parts, log *zap.Logger) *Agent {
	return &Agent{cfg: cfg, journal: journal, parts: parts, log: log, wake: make(chan struct{}, 1)}
}

// Offer tells what the server wants. It may be called with each poll.
func (a *Agent) Offer(o Offer) {
	a.mu.Lock()
	changed := a.offer != o
	a.offer = o
	a.mu.Unlock()
	if changed {
		a.poke()
	}
}

func (a *Agent) poke() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

func (a *Agent) offered() Offer {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.offer.Revision == a.cfg.Revision {
		return Offer{}
	}
	return a.offer
}

// Status tells how far it is.
func (a *Agent) Status() Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.state
}

// Updating tells whether an update is under way.
func (a *Agent) Updating() bool { return a.Status().Phase != "" }

// Hold keeps updates from beginning, or lets them. What has begun goes on.
func (a *Agent) Hold(hold bool) error {
	m, err := a.journal.Memory()
	if err == nil {
		m.Hold = hold
		err = a.journal.Remember(m)
	}
	a.poke()
	return err
}

// Retry forgets what failed.
func (a *Agent) Retry() error {
	m, err := a.journal.Memory()
	if err == nil {
		m.Refused, m.Hold, m.StartedOver = nil, false, ""
		err = a.journal.Remember(m)
	}
	a.poke()
	return err
}

// Run works until ctx ends, or it is the other sensor's turn.
func (a *Agent) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		pause, err := a.once(ctx)
		switch {
		case errors.Is(err, ErrTurn):
			return err
		case ctx.Err() != nil:
		case err != nil:
			pause = min(firstRetry<<min(a.failures, 10), lastRetry)
			a.failures++
			a.log.Warn("update does not go on at the moment", zap.Error(err), zap.Duration("next_try", pause))
			a.note(func(s *Status) { s.Problem = err.Error() })
		case a.failures > 0:
			a.failures = 0
			a.note(func(s *Status) { s.Problem = "" })
		}
		a.pause(ctx, pause)
	}
	return ctx.Err()
}

func (a *Agent) pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-a.wake:
	case <-ctx.Done():
	}
}

func (a *Agent) note(change func(*Status)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change(&a.state)
}

// once does the next step, and says when to look again.
func (a *Agent) once(ctx context.Context) (time.Duration, error) {
	r, err := a.journal.Read()
	if err != nil {
		a.log.Error("an unfinished update is forgotten", zap.Error(err))
		return 0, a.journal.Forget()
	}
	if !a.looked {
		a.looked, a.interrupted = true, r != nil && r.Phase == Verified
	}
	a.show(r)
	switch {
	case r == nil:
		return a.begin(ctx)
	case r.Done:
		return 0, a.settle(ctx, r)
	case !r.Conducted():
		return 0, a.advance(ctx, r)
	}
	side := a.sideOf(ctx, r)
	if r.Serving() != side {
		return 0, ErrTurn
	}
	return busy, a.attend(ctx, r, side)
}

func (a *Agent) show(r *Record) {
	a.note(func(s *Status) {
		if r == nil {
			*s = Status{Hold: s.Hold, Refused: s.Refused}
			return
		}
		s.Phase, s.Revision, s.Since = r.Phase, r.Offer.Revision, r.Began
	})
}

// sideOf tells which sensor this one is. It does not change in an update.
func (a *Agent) sideOf(ctx context.Context, r *Record) Side {
	if known := a.Status().Side; known != "" {
		return known
	}
	side, sure := sideOf(ctx, a.parts.Host, r, a.cfg.Previous)
	if sure {
		a.note(func(s *Status) { s.Side = side })
	}
	return side
}

// sideOf tells which of an update's sensors this process belongs to: by its
// compose project, or, while the engine does not answer, by the project that it
// was started to replace. It is sure of the first.
func sideOf(ctx context.Context, host Loader, r *Record, previous string) (Side, bool) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if self, _, err := host.Self(ctx); err == nil {
		return r.side(self.Project), true
	}
	if previous == r.From.Project {
		return New, false
	}
	return Old, false
}

// begin looks whether there is something to do.
func (a *Agent) begin(ctx context.Context) (time.Duration, error) {
	a.told, a.announced = Report{}, false
	if err := a.retire(ctx); err != nil {
		return 0, err
	}
	m, err := a.journal.Memory()
	if err != nil {
		a.log.Error("what failed before is forgotten", zap.Error(err))
		m = Memory{}
	}
	offer := a.offered()
	refusal := m.refused(offer)
	a.note(func(s *Status) {
		s.Hold, s.Refused = m.Hold, ""
		if refusal != nil {
			s.Refused = fmt.Sprintf("revision %s is not tried again: %s", refusal.Revision, refusal.Reason)
		}
	})
	if offer.Revision == "" || refusal != nil || m.Hold {
		return idle, nil
	}
	r := &Record{Phase: Offered, Offer: offer, Began: time.Now().UTC().Round(0), Limits: a.cfg.Limits}
	if err := offer.validate(); err != nil {
		return 0, a.refuse(ctx, r, err)
	}
	if _, _, err := a.parts.Host.Self(ctx); err != nil {
		return 0, fmt.Errorf("update to %s: this sensor cannot replace itself, update it by hand: %w", offer.Revision, err)
	}
	// From here on another offer was made: what failed before it may be fetched
	// again, and is known by its digest.
	m.Last = offer
	if err := a.journal.Remember(m); err != nil {
		return 0, err
	}
	a.log.Info("update begins", zap.String("revision", offer.Revision))
	return 0, a.journal.Write(r)
}

// retire removes the project that this sensor has replaced, when it was an older
// sensor's update that started this one: that one has no conductor.
func (a *Agent) retire(ctx context.Context) error {
	if a.cfg.Previous == "" || a.retired {
		return nil
	}
	self, d, err := a.parts.Host.Self(ctx)
	if err != nil {
		return fmt.Errorf("remove the sensor before this one: %w", err)
	}
	if self.Project != a.cfg.Previous {
		if err := a.parts.Host.RemoveProject(ctx, a.cfg.Previous, d); err != nil {
			return fmt.Errorf("remove the sensor before this one: %w", err)
		}
	}
	a.retired = true
	return nil
}

// advance takes the update one phase on, up to loaded.
func (a *Agent) advance(ctx context.Context, r *Record) error {
	if offer := a.offered(); offer != r.Offer && offer != (Offer{}) {
		a.log.Info("the server offers another revision", zap.String("revision", offer.Revision), zap.String("before", r.Offer.Revision))
		return a.journal.Forget()
	}
	switch r.Phase {
	case Offered:
		return a.download(ctx, r)
	case Downloaded:
		return a.verify(ctx, r)
	case Verified:
		return a.load(ctx, r)
	case Loaded, Started, Trial, Committed, RolledBack:
	}
	return nil
}

// attend tells the conductor what works, and sees to it that there is one:
// somebody may have removed it.
func (a *Agent) attend(ctx context.Context, r *Record, side Side) error {
	if err := a.tell(ctx, r, side); err != nil {
		return err
	}
	if time.Since(a.attended) < attendEvery {
		return nil
	}
	a.attended = time.Now()
	return a.parts.Host.Spawn(ctx, r)
}

// tell reports what works. In the trial an event of its own shows whether the
// server takes them.
func (a *Agent) tell(ctx context.Context, r *Record, side Side) error {
	if r.Phase == Trial && !a.announced {
		if err := a.parts.Notice(ctx, "Update to "+r.Offer.Revision, "from "+r.From.Revision+", on trial"); err != nil {
			return err
		}
		a.announced = true
	}
	report := Report{Serving: true, Proof: a.parts.Proof()}
	report.Problem = report.Proof.Missing(r.Worked)
	a.note(func(s *Status) { s.Problem = report.Problem })
	if reflect.DeepEqual(report, a.told) {
		return nil
	}
	a.told = report
	return a.journal.Report(side, report)
}

// settle closes an update that has ended.
func (a *Agent) settle(ctx context.Context, r *Record) error {
	if err := a.parts.Host.Dismiss(ctx, r.Deployment.Dir); err != nil {
		return err
	}
	if r.Phase == RolledBack && r.Lost {
		return a.startOver(ctx, r)
	}
	if r.Phase == RolledBack {
		return a.refuse(ctx, r, errors.New(r.Reason))
	}
	if err := a.parts.Host.RemoveImage(ctx, r.From.Image); err != nil {
		a.log.Warn("image of the old revision stays", zap.Error(err))
	}
	a.log.Info("update is done", zap.String("revision", r.Offer.Revision))
	return a.journal.Forget()
}

// refuse ends an update that has failed: the server hears of it, and it is not
// tried again.
func (a *Agent) refuse(ctx context.Context, r *Record, reason error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	m, err := a.journal.Memory()
	if err != nil {
		m = Memory{}
	}
	if m.digest(r.Digest) == nil || m.refused(r.Offer) == nil {
		m.Refused = append(m.Refused, Refusal{
			Revision: r.Offer.Revision, URI: r.Offer.URI, Digest: r.Digest, Reason: reason.Error(), At: time.Now().UTC().Round(0),
		})
	}
	m.Last = r.Offer
	a.log.Error("update is refused", zap.String("revision", r.Offer.Revision), zap.Error(reason))
	// In this order: a notice twice is better than none.
	if err := a.parts.Notice(ctx, "Update to "+r.Offer.Revision+" failed", reason.Error()); err != nil {
		return fmt.Errorf("tell the server of a failed update: %w", err)
	}
	if err := a.journal.Remember(m); err != nil {
		return err
	}
	return a.journal.Forget()
}

// startOver forgets an update that ended for no fault of the firmware, as far as
// can be told. While the server offers it, it begins again; the next time it is
// refused.
func (a *Agent) startOver(ctx context.Context, r *Record) error {
	m, err := a.journal.Memory()
	if err != nil {
		m = Memory{}
	}
	if m.StartedOver == r.Digest {
		return a.refuse(ctx, r, errors.New(r.Reason))
	}
	a.log.Warn("update starts over", zap.String("revision", r.Offer.Revision), zap.String("reason", r.Reason))
	if err := a.parts.Notice(ctx, "Update to "+r.Offer.Revision+" starts over", r.Reason); err != nil {
		return fmt.Errorf("tell the server of an update that starts over: %w", err)
	}
	// In this order: a kill in between must not make the first time the second.
	if err := a.journal.Forget(); err != nil {
		return err
	}
	m.StartedOver = r.Digest
	return a.journal.Remember(m)
}

func (a *Agent) archive() string { return filepath.Join(a.journal.Dir(), archiveFile) }

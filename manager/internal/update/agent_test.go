package update

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"honeysens.org/dockersensor/manager/internal/hsapi"
)

// fakeServer has one firmware, and faults for the first requests.
type fakeServer struct {
	data []byte
	// breaks are after how many bytes of an answer the connection ends; size is
	// what it says instead of the truth.
	breaks  []int64
	size    int64
	err     error
	offsets []int64
}

func (s *fakeServer) GetFirmware(_ context.Context, _ string, offset int64, w io.Writer) (int64, error) {
	s.offsets = append(s.offsets, offset)
	if s.err != nil {
		return 0, s.err
	}
	size := int64(len(s.data))
	if s.size != 0 {
		size = s.size
	}
	if e, ok := w.(hsapi.Expecter); ok {
		if err := e.Expect(size); err != nil {
			return size, fmt.Errorf("fetch: %w", err)
		}
	}
	rest := s.data[min(offset, int64(len(s.data))):]
	if len(s.breaks) > 0 {
		rest, s.breaks = rest[:min(s.breaks[0], int64(len(rest)))], s.breaks[1:]
		if _, err := w.Write(rest); err != nil {
			return size, err
		}
		return size, &hsapi.Error{Class: hsapi.ClassRoute, Problem: "connection reset"}
	}
	for chunk := range slices.Chunk(rest, 4096) {
		if _, err := w.Write(chunk); err != nil {
			return size, err
		}
	}
	return size, nil
}

// fakeHost is the host's engine for the agent.
type fakeHost struct {
	project, dir  string
	away, loadErr error
	did           []string
}

func (h *fakeHost) Self(context.Context) (Sensor, Deployment, error) {
	if h.away != nil {
		return Sensor{}, Deployment{}, h.away
	}
	return Sensor{Project: h.project, Image: imageOld, Container: oldID}, Deployment{
		Dir: h.dir, Files: []string{h.dir + "/docker-compose.yml"}, Service: "sensor", Socket: "/run/docker.sock", HostNetwork: true,
	}, nil
}

func (h *fakeHost) Load(_ context.Context, name string, layers []string, archive io.Reader) (string, error) {
	h.did = append(h.did, fmt.Sprintf("load %s with %d layers", name, len(layers)))
	if h.loadErr != nil {
		return "", h.loadErr
	}
	_, err := io.Copy(io.Discard, archive)
	return imageNew, err
}

func (h *fakeHost) Spawn(context.Context, *Record) error {
	h.did = append(h.did, "spawn")
	return h.away
}
func (h *fakeHost) Dismiss(context.Context, string) error {
	h.did = append(h.did, "dismiss")
	return h.away
}
func (h *fakeHost) RemoveImage(_ context.Context, id string) error {
	h.did = append(h.did, "remove "+id[len(id)-1:])
	return h.away
}

func (h *fakeHost) RemoveProject(_ context.Context, project string, _ Deployment) error {
	h.did = append(h.did, "remove project "+project)
	return h.away
}

// bench is an agent with all around it.
type bench struct {
	t       *testing.T
	agent   *Agent
	journal *Journal
	server  *fakeServer
	host    *fakeHost
	notices []string
	noticed error
}

var offerB = Offer{Revision: "2.0", URI: "api/platforms/firmware/1/raw"}

func newBench(t *testing.T) *bench {
	t.Helper()
	dir := t.TempDir()
	b := &bench{
		t: t, journal: NewJournal(filepath.Join(dir, "update")), host: &fakeHost{project: "hs", dir: dir},
		server: &fakeServer{data: gzipped(t, archived(t, metadataOf(platform, "2.0"), imageOf(t, savedImage{Tags: rightTags, Labels: map[string]string{handoverLabel: "1"}})))},
	}
	if err := os.MkdirAll(b.journal.Dir(), 0o700); err != nil {
		t.Fatal(err)
	}
	b.restart(Config{Revision: "1.0", DeployDir: dir, Limits: Limits{Prepare: time.Minute, Trial: time.Minute}})
	return b
}

// restart is another life of the manager.
func (b *bench) restart(cfg Config) {
	b.agent = NewAgent(cfg, b.journal, Parts{
		Server: b.server, Host: b.host,
		Notice: func(_ context.Context, summary, detail string) error {
			b.notices = append(b.notices, summary+": "+detail)
			return b.noticed
		},
		Worked: func(context.Context) Worked { return Worked{Services: []string{"7"}, Network: true, Events: true} },
		Proof:  func() Proof { return Proof{Poll: true, Network: true} },
	}, zap.NewNop())
	b.agent.Offer(offerB)
}

// drive lets the agent do its steps until it waits or the conductor has the say,
// and returns the phases that were seen.
func (b *bench) drive() []Phase {
	b.t.Helper()
	var seen []Phase
	for range 30 {
		r, _ := b.journal.Read()
		if r != nil && (len(seen) == 0 || seen[len(seen)-1] != r.Phase) {
			seen = append(seen, r.Phase)
		}
		if r.Conducted() {
			return seen
		}
		if pause, err := b.agent.once(b.t.Context()); err == nil && pause > 0 {
			return seen
		}
	}
	b.t.Fatalf("the agent does not come to rest: %v", seen)
	return nil
}

func (b *bench) record() *Record {
	b.t.Helper()
	r, err := b.journal.Read()
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

// refused wants the newest refusal to say something, and one notice of it.
func (b *bench) refused(says string) {
	b.t.Helper()
	if r := b.record(); r != nil {
		b.t.Errorf("the journal still has %+v", r)
	}
	if len(b.notices) != 1 || !strings.Contains(b.notices[0], "Update to 2.0 failed: ") || !strings.Contains(b.notices[0], says) {
		b.t.Errorf("notices %q, want one with %q", b.notices, says)
	}
	if status := b.agent.Status(); !strings.Contains(status.Refused, says) {
		b.t.Errorf("status %+v", status)
	}
	if _, err := os.Stat(b.agent.archive()); err == nil {
		b.t.Error("the archive is still there")
	}
}

func TestAgentTakesFirmwareToTheConductor(t *testing.T) {
	b := newBench(t)
	want := []Phase{Offered, Downloaded, Verified, Loaded}
	if diff := cmp.Diff(want, b.drive()); diff != "" {
		t.Errorf("phases (-want +got):\n%s", diff)
	}
	r := b.record()
	if !r.Beside || r.From.Project != "hs" || r.From.Revision != "1.0" || r.To.Image != imageNew || r.To.Project == "hs" ||
		!strings.HasPrefix(r.To.Project, "hs-") || cmp.Diff([]string{"7"}, r.Worked.Services) != "" {
		t.Errorf("record %+v", r)
	}
	if diff := cmp.Diff([]string{"load honeysens/sensorx86:2.0 with 1 layers", "spawn"}, b.host.did); diff != "" {
		t.Errorf("the engine was told (-want +got):\n%s", diff)
	}
	if !b.agent.Updating() || b.agent.Status().Revision != "2.0" {
		t.Errorf("status %+v", b.agent.Status())
	}
}

// TestAgentGoesOnAfterAKill has another agent for each step.
func TestAgentGoesOnAfterAKill(t *testing.T) {
	b := newBench(t)
	for range 5 {
		if _, err := b.agent.once(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.restart(b.agent.cfg)
	}
	if r := b.record(); r == nil || r.Phase != Loaded {
		t.Errorf("record %+v", r)
	}
}

func TestDownloadGoesOnWhereItEnded(t *testing.T) {
	b := newBench(t)
	b.server.breaks = []int64{100, 50, 0}
	b.drive()
	if diff := cmp.Diff([]int64{0, 100, 150, 150}, b.server.offsets); diff != "" {
		t.Errorf("asked from (-want +got):\n%s", diff)
	}
	if r := b.record(); r == nil || r.Phase != Loaded || r.Size != int64(len(b.server.data)) {
		t.Errorf("record %+v", r)
	}
}

// TestDownloadOfAnotherArchive: what was fetched is of no use when the server says
// so.
func TestDownloadOfAnotherArchive(t *testing.T) {
	b := newBench(t)
	b.server.breaks = []int64{100}
	for range 2 {
		_, _ = b.agent.once(t.Context())
	}
	b.server.err = &hsapi.Error{Class: hsapi.ClassAnswer, Status: 416, Problem: "no such range"}
	if _, err := b.agent.once(t.Context()); err == nil {
		t.Fatal("no error")
	}
	b.server.err = nil
	b.drive()
	if diff := cmp.Diff([]int64{0, 100, 0}, b.server.offsets); diff != "" {
		t.Errorf("asked from (-want +got):\n%s", diff)
	}
}

func TestSizeThatIsALie(t *testing.T) {
	b := newBench(t)
	b.server.size = int64(len(b.server.data)) + 1
	for range 3 {
		_, _ = b.agent.once(t.Context())
	}
	if r := b.record(); r == nil || r.Phase != Offered {
		t.Errorf("record %+v", r)
	}
	b.server.size = 1 << 50
	b.drive()
	b.refused("MB free, the update needs")
}

func TestDownloadIsLimitedInRate(t *testing.T) {
	b := newBench(t)
	b.server.data = append(b.server.data, make([]byte, 64<<10)...)
	cfg := b.agent.cfg
	cfg.Rate = 128 << 10
	b.restart(cfg)
	began := time.Now()
	b.drive()
	if took := time.Since(began); took < 500*time.Millisecond {
		t.Errorf("64 KiB at 128 KiB a second took %s", took)
	}
}

func TestEveryWayToRefuse(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*bench)
		says  string
	}{
		"revision that is no tag": {func(b *bench) { b.agent.Offer(Offer{Revision: "2.0 -rf"}) }, "cannot be the tag"},
		"bad archive":             {func(b *bench) { b.server.data = []byte("no archive at all") }, "not taken"},
		"unsigned": {func(b *bench) {
			if err := os.WriteFile(filepath.Join(b.host.dir, KeyFile), newSigner(b.t, "12345678").public(), 0o600); err != nil {
				b.t.Fatal(err)
			}
		}, "not signed"},
		"engine refuses": {func(b *bench) { b.host.loadErr = errors.New("unexpected EOF") }, "unexpected EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			c.spoil(b)
			b.drive()
			if name == "revision that is no tag" {
				if len(b.notices) != 1 || !strings.Contains(b.notices[0], c.says) {
					t.Errorf("notices %q", b.notices)
				}
				return
			}
			b.refused(c.says)
			// The server offers it on, and in the next life, too.
			asked := len(b.server.offsets)
			b.restart(b.agent.cfg)
			b.drive()
			if len(b.server.offsets) != asked || len(b.notices) != 1 {
				t.Errorf("it was tried again: %v, %q", b.server.offsets, b.notices)
			}
		})
	}
}

// TestFailedDigestIsKnown: another offer lets the server try again, and the same
// archive is not loaded a second time.
func TestFailedDigestIsKnown(t *testing.T) {
	b := newBench(t)
	b.host.loadErr = errors.New("unexpected EOF")
	b.drive()
	b.refused("unexpected EOF")
	b.host.loadErr, b.host.did = nil, nil
	b.agent.Offer(Offer{Revision: "2.0", URI: "api/platforms/firmware/2/raw"})
	b.drive()
	if r := b.record(); r != nil || len(b.host.did) > 0 {
		t.Errorf("the same archive is tried again: %+v, %v", r, b.host.did)
	}
	if last := b.notices[len(b.notices)-1]; len(b.notices) != 2 || !strings.Contains(last, "unexpected EOF") {
		t.Errorf("notices %q", b.notices)
	}
	// Another archive of that revision is a new chance.
	b.server.data = archived(t, metadataOf(platform, "2.0"), goodImage(t), entry{name: "README.md"})
	b.agent.Offer(offerB)
	b.drive()
	if r := b.record(); r == nil || r.Phase != Loaded {
		t.Errorf("another archive is not tried: %+v, %q", r, b.notices)
	}
}

func TestOperatorRetriesAndHolds(t *testing.T) {
	b := newBench(t)
	b.host.loadErr = errors.New("unexpected EOF")
	b.drive()
	b.host.loadErr = nil
	if err := b.agent.Hold(true); err != nil {
		t.Fatal(err)
	}
	b.restart(b.agent.cfg)
	b.drive()
	if !b.agent.Status().Hold || b.record() != nil {
		t.Errorf("status %+v, record %+v", b.agent.Status(), b.record())
	}
	if err := b.agent.Retry(); err != nil {
		t.Fatal(err)
	}
	b.drive()
	if r := b.record(); r == nil || r.Phase != Loaded || b.agent.Status().Hold {
		t.Errorf("record %+v", r)
	}
}

func TestAgentWaitsForTheEngine(t *testing.T) {
	b := newBench(t)
	b.host.away = ErrNoHost
	for range 3 {
		if _, err := b.agent.once(t.Context()); !errors.Is(err, ErrNoHost) {
			t.Errorf("got %v", err)
		}
	}
	if len(b.notices) > 0 || b.record() != nil {
		t.Errorf("notices %q, record %+v", b.notices, b.record())
	}
	b.host.away = nil
	b.drive()
	if r := b.record(); r == nil || r.Phase != Loaded {
		t.Errorf("record %+v", r)
	}
}

func TestOfferThatIsWithdrawn(t *testing.T) {
	b := newBench(t)
	_, _ = b.agent.once(t.Context())
	b.agent.Offer(Offer{Revision: "3.0", URI: "api/platforms/firmware/3/raw"})
	if _, err := b.agent.once(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r := b.record(); r != nil {
		t.Errorf("it goes on with %+v", r)
	}
	b.agent.Offer(Offer{Revision: "1.0", URI: "api/platforms/firmware/4/raw"})
	b.drive()
	if r := b.record(); r != nil || len(b.server.offsets) > 0 {
		t.Errorf("its own revision is fetched: %+v", r)
	}
}

// TestLoadThatWasInterrupted: the engine may have layers with empty files. Only a
// manager that comes up then loads the image anew, and only once.
func TestLoadThatWasInterrupted(t *testing.T) {
	b := newBench(t)
	for range 3 {
		if _, err := b.agent.once(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	b.restart(b.agent.cfg)
	b.drive()
	load := "load honeysens/sensorx86:2.0 with 1 layers"
	if diff := cmp.Diff([]string{load, "remove " + imageNew[len(imageNew)-1:], load, "spawn"}, b.host.did); diff != "" {
		t.Errorf("the engine was told (-want +got):\n%s", diff)
	}
}

func TestArchiveThatChangesOnTheDisk(t *testing.T) {
	b := newBench(t)
	for range 3 {
		if _, err := b.agent.once(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if r := b.record(); r == nil || r.Phase != Verified {
		t.Fatalf("record %+v", r)
	}
	other := gzipped(t, archived(t, metadataOf(platform, "2.0"), imageOf(t, savedImage{Tags: []string{"evil:1"}})))
	if err := os.WriteFile(b.agent.archive(), other, 0o600); err != nil {
		t.Fatal(err)
	}
	b.drive()
	b.refused("changed on the disk")
	if slices.Contains(b.host.did, "spawn") {
		t.Error("a conductor is there")
	}
}

// TestArchiveThatIsGone is fetched again.
func TestArchiveThatIsGone(t *testing.T) {
	b := newBench(t)
	for range 2 {
		_, _ = b.agent.once(t.Context())
	}
	if err := os.Remove(b.agent.archive()); err != nil {
		t.Fatal(err)
	}
	b.drive()
	if r := b.record(); r == nil || r.Phase != Loaded || len(b.server.offsets) != 2 {
		t.Errorf("record %+v, asked %v", r, b.server.offsets)
	}
}

func TestAgentSettlesWhatHasEnded(t *testing.T) {
	for _, phase := range []Phase{Committed, RolledBack} {
		t.Run(string(phase), func(t *testing.T) {
			b := newBench(t)
			b.agent.Offer(Offer{})
			r := someRecord()
			r.Phase, r.Reason = phase, "it did not prove itself"
			if err := b.journal.Write(r); err != nil {
				t.Fatal(err)
			}
			// A notice that is not kept is tried again.
			b.noticed = errors.New("spool is full")
			if _, err := b.agent.once(t.Context()); (err != nil) != (phase == RolledBack) {
				t.Errorf("got %v", err)
			}
			b.noticed = nil
			b.drive()
			if b.record() != nil {
				t.Errorf("record %+v", b.record())
			}
			m, err := b.journal.Memory()
			if err != nil || (m.digest(r.Digest) != nil) != (phase == RolledBack) {
				t.Errorf("memory %+v, %v", m, err)
			}
			if removed := slices.Contains(b.host.did, "remove 1"); removed != (phase == Committed) {
				t.Errorf("the engine was told %v", b.host.did)
			}
		})
	}
}

// TestUpdateWhoseImageWasRemovedStartsOver, and is not remembered as refused.
func TestUpdateWhoseImageWasRemovedStartsOver(t *testing.T) {
	b := newBench(t)
	r := someRecord()
	r.Phase, r.Done, r.Offer, r.Reason, r.Lost = RolledBack, true, offerB, "somebody removed the image", true
	if err := b.journal.Write(r); err != nil {
		t.Fatal(err)
	}
	if got := b.drive(); len(got) == 0 || got[len(got)-1] != Loaded {
		t.Errorf("phases %v", got)
	}
	if len(b.notices) != 1 || !strings.Contains(b.notices[0], r.Reason) {
		t.Errorf("the server was told %q", b.notices)
	}

	// Once: what it takes away itself must not fetch it for ever.
	if err := b.journal.Write(r); err != nil {
		t.Fatal(err)
	}
	b.notices = nil
	b.drive()
	b.refused(r.Reason)
}

func TestTurnsOfTheAgent(t *testing.T) {
	for _, c := range []struct {
		project string
		phase   Phase
		turn    bool
	}{{"hs", Started, true}, {"hs", Trial, false}, {"hs", Committed, false}, {"hs", RolledBack, true}, {"hs-2", Trial, true}, {"hs-2", RolledBack, false}, {"hs-2", Started, false}} {
		b := newBench(t)
		b.host.project = c.project
		r := someRecord()
		r.Phase, r.Done = c.phase, false
		if err := b.journal.Write(r); err != nil {
			t.Fatal(err)
		}
		_, err := b.agent.once(t.Context())
		if errors.Is(err, ErrTurn) == c.turn || (c.turn && err != nil) {
			t.Errorf("%s at %s: %v, want a turn: %v", c.project, c.phase, err, c.turn)
		}
		side := r.side(c.project)
		if report, err := b.journal.Heard(side); err != nil || report.Serving != c.turn {
			t.Errorf("%s at %s reports %+v, %v", c.project, c.phase, report, err)
		}
		if told := slices.ContainsFunc(b.notices, func(n string) bool { return strings.HasPrefix(n, "Update to b") }); told != (c.turn && c.phase == Trial) {
			t.Errorf("%s at %s: notices %q", c.project, c.phase, b.notices)
		}
	}
}

// TestSensorBeforeIsRemoved: an older sensor's update has no conductor.
func TestSensorBeforeIsRemoved(t *testing.T) {
	b := newBench(t)
	cfg := b.agent.cfg
	cfg.Previous = "hs_1_1700000000"
	b.restart(cfg)
	b.agent.Offer(Offer{})
	b.drive()
	b.drive()
	if diff := cmp.Diff([]string{"remove project hs_1_1700000000"}, b.host.did); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestTornJournalDoesNotStopTheAgent(t *testing.T) {
	b := newBench(t)
	for _, name := range []string{journalFile, memoryFile} {
		if err := os.WriteFile(filepath.Join(b.journal.Dir(), name), []byte(`{"phase":"tri`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b.drive()
	if r := b.record(); r == nil || r.Phase != Loaded {
		t.Errorf("record %+v", r)
	}
}

// TestAgentEndsWithItsContext runs it as the manager does.
func TestAgentEndsWithItsContext(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.agent.Run(ctx) }()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for b.agent.Status().Phase != Loaded {
		<-tick.C
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestNextProject(t *testing.T) {
	r := someRecord()
	first := nextProject("honeysens", "/opt/a", r)
	second := nextProject(first, "/opt/a", r)
	if !projectName.MatchString(first) || !strings.HasPrefix(second, "honeysens-") || len(second) != len(first) || first == second {
		t.Errorf("%q, %q", first, second)
	}
	if other := nextProject("honeysens", "/opt/b", r); other == first {
		t.Errorf("two directories get %q", other)
	}
	if long := nextProject(strings.Repeat("x", 128), "/opt/a", r); !projectName.MatchString(long) {
		t.Errorf("%q", long)
	}
	if python := nextProject("hs_1_1700000000", "/opt/a", r); !strings.HasPrefix(python, "hs_1_1700000000-") {
		t.Errorf("%q", python)
	}
}

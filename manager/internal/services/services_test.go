package services

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap/zaptest"

	"honeysens.org/dockersensor/shared/helperapi"
)

func ssh(id string) Wanted {
	return Wanted{ID: id, Label: "ssh", Image: "cowrie:1", Ports: []helperapi.Assignment{
		{Port: helperapi.Port{Protocol: helperapi.TCP, Number: 22}, To: 2222},
	}}
}

func catchAll(id string) Wanted {
	return Wanted{ID: id, Label: "all", Image: "recon:1", CatchAll: true}
}

// begin runs services in the world until the test ends or the result is called.
func begin(t *testing.T, w *world, cfg Config) (*Services, func()) {
	t.Helper()
	cfg.Interface, cfg.CollectorPort = "eth0", 5556
	s := New(cfg, w, w, w, zaptest.NewLogger(t))
	s.sockets = w.sockets
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx)
	}()
	end := func() {
		cancel()
		<-done
	}
	t.Cleanup(end)
	return s, end
}

// after lets that much time pass; the clock is the test's own.
func after(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func wantDeeds(t *testing.T, w *world, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, w.take()); diff != "" {
		t.Errorf("deeds (-want +got):\n%s", diff)
	}
}

func wantState(t *testing.T, s *Services, id string, status Status, reason string) State {
	t.Helper()
	for _, state := range s.States() {
		if state.ID != id {
			continue
		}
		if state.Status != status || !strings.Contains(state.Reason, reason) || (reason == "") != (state.Reason == "") {
			t.Errorf("service %s is %v (%q), want %v (%q)", id, state.Status, state.Reason, status, reason)
		}
		return state
	}
	t.Fatalf("service %s has no state", id)
	return State{}
}

func TestServiceComesUpInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		s, _ := begin(t, w, Config{})
		s.SetWanted([]Wanted{ssh("1")})
		after(time.Second)
		wantDeeds(t, w, "apply []", "create s1.net", "start s1.net", "apply [1]", "create s1", "start s1", "apply [1 22/tcp:2222]")
		state := wantState(t, s, "1", Running, "")
		if state.V4 != netip.MustParseAddr("10.10.10.10") || state.ContainerID != w.names["s1"] || state.Digest != "sha256:image of cowrie:1" {
			t.Errorf("state is %+v", state)
		}
		sandbox, honeypot := w.specs[w.names["s1.net"]], w.specs[w.names["s1"]]
		if sandbox.Network != "none" || len(sandbox.Caps) > 0 || !sandbox.ReadOnly || sandbox.Image != "pause" {
			t.Errorf("sandbox is made from %+v", sandbox)
		}
		if honeypot.Network != "container:"+w.names["s1.net"] || honeypot.Image != "image of cowrie:1" || honeypot.Memory != 512<<20 {
			t.Errorf("honeypot is made from %+v", honeypot)
		}
		if diff := cmp.Diff([]string{"COLLECTOR_HOST=10.10.10.1", "COLLECTOR_PORT=5556"}, honeypot.Env); diff != "" {
			t.Error(diff)
		}
		for _, dangerous := range []string{"SYS_ADMIN", "MKNOD", "SETFCAP", "SYS_PTRACE", "SYS_MODULE"} {
			if slices.Contains(honeypot.Caps, dangerous) {
				t.Errorf("honeypot has %s", dangerous)
			}
		}
		after(30 * time.Second)
		wantDeeds(t, w)
	})
}

func TestRawServiceJoinsTheSensor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		s, _ := begin(t, w, Config{})
		s.SetWanted([]Wanted{{ID: "3", Image: "honeyd:1", Raw: true}})
		after(time.Second)
		wantDeeds(t, w, "apply []", "create s3", "start s3")
		wantState(t, s, "3", Running, "")
		spec := w.specs[w.names["s3"]]
		if spec.Network != "host" || !slices.Contains(spec.Env, "INTERFACE=eth0") || !slices.Contains(spec.Env, "COLLECTOR_HOST=10.10.10.1") {
			t.Errorf("it is made from %+v", spec)
		}
		if id, ok := s.Identify(netip.MustParseAddr("10.10.10.1")); id != "3" || !ok {
			t.Errorf("its address belongs to %q", id)
		}
	})
}

func TestCrashKeepsSandboxAndRules(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		s, _ := begin(t, w, Config{Resync: time.Hour})
		s.SetWanted([]Wanted{ssh("1")})
		after(2 * time.Minute)
		w.take()
		w.end("s1", 1)
		s.Wake()
		synctest.Wait()
		wantDeeds(t, w)
		wantState(t, s, "1", Scheduled, "it ended with code 1: the last words; started again in 1s")
		after(2 * time.Second)
		wantDeeds(t, w, "start s1")
		wantState(t, s, "1", Scheduled, "started again")
		after(11 * time.Second)
		wantState(t, s, "1", Running, "")
		for range 2 {
			w.end("s1", 2)
			s.Wake()
			after(5 * time.Second)
		}
		w.end("s1", 2)
		s.Wake()
		synctest.Wait()
		wantState(t, s, "1", Failed, "it ended with code 2")
		wantDeeds(t, w, "start s1", "start s1")
	})
}

func TestSandboxThatEndedIsReplacedWithItsHoneypot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		s, _ := begin(t, w, Config{})
		s.SetWanted([]Wanted{ssh("1")})
		after(time.Second)
		w.take()
		w.end("s1.net", 0)
		s.Wake()
		after(time.Second)
		wantDeeds(t, w, "remove s1", "remove s1.net", "create s1.net", "start s1.net", "apply [1]", "create s1", "start s1", "apply [1 22/tcp:2222]")
		wantState(t, s, "1", Running, "")
	})
}

func TestSandboxThatCannotBeMadeIsNotHurried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		s, _ := begin(t, w, Config{})
		w.change(func() { w.images["cowrie:1"] = "image"; w.sandboxErr = errors.New("no memory") })
		s.SetWanted([]Wanted{ssh("1"), {ID: "2", Image: "honeyd:1", Raw: true}})
		for range 20 {
			s.Wake()
			after(time.Second)
		}
		if n := w.attempts; n < 3 || n > 6 {
			t.Errorf("%d attempts in 20 s, want a pause that doubles", n)
		}
		wantState(t, s, "1", Failed, "no memory")
		wantState(t, s, "2", Running, "")
		w.change(func() { w.sandboxErr = nil })
		after(time.Minute)
		wantState(t, s, "1", Running, "")
	})
}

func TestRemovalTakesTheWholeServiceAndNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		s, _ := begin(t, w, Config{})
		ten := catchAll("10")
		s.SetWanted([]Wanted{ssh("1"), ten})
		after(time.Second)
		w.take()
		s.SetWanted([]Wanted{ten})
		after(time.Second)
		wantDeeds(t, w, "remove s1", "remove s1.net", "apply [10 catch-all]", "drop image cowrie:1")
		wantState(t, s, "10", Running, "")
		if _, ok := s.Identify(netip.MustParseAddr("10.10.10.11")); ok {
			t.Error("an address without service belongs to one")
		}
	})
}

func TestOneImageStopsNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.registry["cowrie:1"] = errors.New("image cowrie:1 cannot be fetched from server:443: no route")
		w.slow["honeyd:1"] = make(chan struct{})
		s, _ := begin(t, w, Config{})
		list := []Wanted{ssh("1"), catchAll("2"), {ID: "3", Image: "honeyd:1"}}
		s.SetWanted(list)
		after(time.Second)
		wantState(t, s, "1", Failed, "no route")
		wantState(t, s, "2", Running, "")
		wantState(t, s, "3", Scheduled, "its image is fetched: 5 of 50 MB")
		w.change(func() { delete(w.registry, "cowrie:1") })
		close(w.slow["honeyd:1"])
		s.SetWanted(list)
		after(time.Second)
		wantState(t, s, "1", Running, "")
		wantState(t, s, "3", Running, "")
	})
}

func TestOldImageRunsUntilTheNewOneIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		s, _ := begin(t, w, Config{})
		s.SetWanted([]Wanted{ssh("1")})
		after(time.Second)
		w.take()
		w.slow["cowrie:2"] = make(chan struct{})
		newer := ssh("1")
		newer.Image = "cowrie:2"
		s.SetWanted([]Wanted{newer})
		after(fetchTold + time.Second)
		wantDeeds(t, w)
		wantState(t, s, "1", Scheduled, "its image is fetched")
		close(w.slow["cowrie:2"])
		after(drain + 2*time.Second)
		wantDeeds(t, w, "rename s1 to s1.old", "rename s1.net to s1.net.old", "create s1.net", "start s1.net",
			"apply [1 22/tcp:2222 1-other]", "create s1", "start s1", "apply [1 22/tcp:2222 1-other]",
			"remove s1.old", "remove s1.net.old", "apply [1 22/tcp:2222]", "drop image cowrie:1")
		wantState(t, s, "1", Running, "")
	})
}

func TestChangedGatewayReplacesHoneypots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		s, _ := begin(t, w, Config{})
		s.SetWanted([]Wanted{ssh("1")})
		after(time.Second)
		w.take()
		w.change(func() { w.gateway = netip.MustParseAddr("10.20.0.1") })
		s.Reconnect()
		after(time.Second)
		wantDeeds(t, w, "apply [1 22/tcp:2222]", "remove s1", "create s1", "start s1")
		if env := w.specs[w.names["s1"]].Env; !slices.Contains(env, "COLLECTOR_HOST=10.20.0.1") {
			t.Errorf("its environment is %v", env)
		}
	})
}

func TestHelperRefusesOneService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		s, _ := begin(t, w, Config{})
		w.refuse["2"] = &helperapi.Error{Kind: helperapi.KindConflict, Message: "no address left"}
		s.SetWanted([]Wanted{ssh("1"), catchAll("2"), {ID: "3", Image: "honeyd:1"}})
		after(2 * time.Second)
		wantState(t, s, "1", Running, "")
		wantState(t, s, "2", Failed, "no address left")
		wantState(t, s, "3", Running, "")
		w.take()
		after(5 * time.Second)
		wantDeeds(t, w)
		w.change(func() { w.refuse = nil })
		after(refusedAgain)
		wantState(t, s, "2", Running, "")
	})
}

func TestHelperIsAbsentForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.applyErr = errors.New("nethelper is not running")
		s, _ := begin(t, w, Config{})
		s.SetWanted([]Wanted{ssh("1")})
		after(time.Second)
		wantState(t, s, "1", Scheduled, "nethelper is not running")
		w.change(func() { w.applyErr = nil })
		after(networkRetry)
		wantState(t, s, "1", Running, "")
	})
}

func TestAbsentEngineIsToldAndReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.engineErr = errors.New("no such socket")
		s, _ := begin(t, w, Config{})
		s.SetWanted([]Wanted{ssh("1")})
		after(time.Second)
		wantState(t, s, "1", Scheduled, "no such socket")
		if s.EngineError() == nil {
			t.Error("nothing is said about the engine")
		}
		wantDeeds(t, w, "apply []")
		after(enginePatience)
		wantState(t, s, "1", Failed, "no such socket")
		w.change(func() { w.engineErr = nil })
		after(engineRetry + time.Second)
		wantState(t, s, "1", Running, "")
		if err := s.EngineError(); err != nil {
			t.Error(err)
		}
	})
}

func TestNextRunTakesOverWithoutServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		cfg := Config{Store: filepath.Join(t.TempDir(), "services.json")}
		s, end := begin(t, w, cfg)
		s.SetWanted([]Wanted{ssh("1"), catchAll("2")})
		after(time.Second)
		end()
		w.take()
		w.change(func() { w.registry["cowrie:1"] = errors.New("no server") })
		s, _ = begin(t, w, cfg)
		after(time.Second)
		wantDeeds(t, w, "apply [1 22/tcp:2222 2 catch-all]")
		wantState(t, s, "1", Running, "")
		wantState(t, s, "2", Running, "")
	})
}

func TestNothingIsTouchedUntilServicesAreKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		s, end := begin(t, w, Config{})
		after(time.Second)
		wantDeeds(t, w, "apply []")
		s.SetWanted([]Wanted{ssh("1")})
		after(time.Second)
		end()
		w.take()
		_, _ = begin(t, w, Config{})
		after(10 * time.Minute)
		wantDeeds(t, w)
	})
}

// TestAnyFaultIsOvercome breaks each call of the engine once, on the way up and
// on the way to another list.
func TestAnyFaultIsOvercome(t *testing.T) {
	for n := 1; n <= 30; n++ {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			w.faults[n] = errors.New("broken")
			s, _ := begin(t, w, Config{Resync: time.Minute})
			s.SetWanted([]Wanted{ssh("1"), catchAll("2")})
			after(150 * time.Second)
			wantState(t, s, "1", Running, "")
			wantState(t, s, "2", Running, "")
			s.SetWanted([]Wanted{catchAll("2"), ssh("3")})
			after(150 * time.Second)
			wantState(t, s, "2", Running, "")
			wantState(t, s, "3", Running, "")
			if len(w.containers) != 4 || len(w.network) != 2 {
				t.Errorf("fault %d: there are %v and %v", n, w.names, w.network)
			}
		})
	}
}

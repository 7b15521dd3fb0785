package services

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
)

// chaosRuns is how often the test kills, unless CHAOS_RUNS says otherwise, and
// chaosSpan the time within which it does: the script takes about that long.
const (
	chaosRuns = 3
	chaosSpan = 1500 * time.Millisecond
)

// TestEngineKills kills the engine, or ends the services in the middle of
// what they do, at a random moment of a script. However that leaves things, the
// next start comes to the same end.
func TestEngineKills(t *testing.T) {
	runs := chaosRuns
	if text := os.Getenv("CHAOS_RUNS"); text != "" {
		var err error
		if runs, err = strconv.Atoi(text); err != nil {
			t.Fatalf("CHAOS_RUNS: %v", err)
		}
	}
	b := newBench(t)
	t.Cleanup(b.endShims)
	b.push("honeypot:2")
	b.begin()
	defer func() { b.end() }()
	seed := uint64(time.Now().UnixNano()) // #nosec G115 -- any number will do
	t.Logf("seed %d", seed)
	chance := rand.New(rand.NewPCG(seed, 0)) // #nosec G404 -- no secret
	for n := range runs {
		moment := time.Duration(chance.Int64N(int64(chaosSpan)))
		killed := make(chan struct{})
		ctx, cancel := context.WithTimeout(t.Context(), moment)
		go func() {
			defer close(killed)
			script(ctx, b.services)
		}()
		<-ctx.Done()
		cancel()
		<-killed
		what := "services"
		if n%2 == 0 {
			what = "engine"
			b.killEngine()
		}
		b.end()
		b.begin()
		b.comesToTheEnd(n, what, moment)
	}
}

// script is what a server may want within a second.
func script(ctx context.Context, s *Services) {
	newer := honeypot("1")
	newer.Image = "honeypot:2"
	tick := time.NewTicker(chaosSpan / 5)
	defer tick.Stop()
	for _, list := range [][]Wanted{
		{honeypot("1"), honeypot("10")}, {newer, honeypot("10")}, {honeypot("10"), honeypot("100")}, {}, {honeypot("1")},
	} {
		s.SetWanted(list)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// killEngine ends the engine and its containerd, as the kernel does when memory
// is short, and starts the engine again. Shims and containers live on.
func (b *bench) killEngine() {
	b.t.Helper()
	dir := filepath.Dir(b.Socket)
	for _, file := range []string{"docker.pid", "exec/containerd/containerd.pid"} {
		text, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			b.t.Fatal(err)
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			b.t.Fatal(err)
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			b.t.Fatal(err)
		}
		b.eventually("process "+file+" is gone", func() bool { return dead(pid) })
	}
	b.Stop()
	// A number that is given again to another process would be taken for it.
	if err := os.Remove(filepath.Join(dir, "exec/containerd/containerd.pid")); err != nil {
		b.t.Fatal(err)
	}
	b.Run()
}

// endShims ends the shims of the engine that is no more: a killed one leaves
// some that its successor does not know.
func (b *bench) endShims() {
	b.Stop()
	shims, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		b.t.Fatal(err)
	}
	address := filepath.Join(filepath.Dir(b.Socket), "exec/containerd/containerd.sock")
	for _, file := range shims {
		text, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(text), address) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err == nil {
			err = syscall.Kill(pid, syscall.SIGKILL)
		}
		if err != nil {
			b.t.Errorf("end shim: %v", err)
		}
	}
}

// dead tells whether a process has ended, even if nobody has waited for it.
func dead(pid int) bool {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	_, rest, _ := strings.Cut(string(text), ") ")
	return err != nil || strings.HasPrefix(rest, "Z")
}

// comesToTheEnd wants two services of the newest revision and nothing else.
func (b *bench) comesToTheEnd(run int, what string, moment time.Duration) {
	b.t.Helper()
	began := time.Now()
	newer := honeypot("1")
	newer.Image = "honeypot:2"
	b.services.SetWanted([]Wanted{newer, honeypot("10")})
	b.eventually("the same end", func() bool {
		list, err := b.Client.ContainerList(b.t.Context(), container.ListOptions{})
		all, errAll := b.Client.ContainerList(b.t.Context(), container.ListOptions{All: true})
		names := map[string]bool{}
		for _, c := range list {
			names[c.Names[0]] = true
		}
		return err == nil && errAll == nil && len(list) == 4 && len(all) == 4 &&
			names["/s1"] && names["/s1.net"] && names["/s10"] && names["/s10.net"] &&
			b.state("1").Status == Running && b.state("10").Status == Running &&
			b.inspect("s1").Config.Labels[labelImage] == "honeypot:2"
	})
	b.t.Logf("run %d: killed the %s after %v, the same end after %v", run, what, moment.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
}

package services

import (
	"context"
	"math/rand/v2"
	"os"
	"strconv"
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
	t.Cleanup(func() {
		b.Stop()
		b.KillShims()
	})
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
			b.KillDaemons()
			b.Run()
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

package app

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"honeysens.org/dockersensor/manager/internal/config"
)

const (
	good = "192.0.2.1"
	bad  = "192.0.2.66"
)

func TestTrials(t *testing.T) {
	const day = 24 * time.Hour
	tests := []struct {
		name string
		run  func(w *world, old string)
	}{
		{"a change that works is settled by the next poll", func(w *world, old string) {
			w.host(old, good)
			w.want("server", "host", good)
			w.pass(time.Minute)
			w.expect(good, "trial", 0)
			w.pass(tick)
			w.expect(good, "", 0)
		}},
		{"a change that is no risk needs no trial", func(w *world, old string) {
			w.host(old)
			w.want("server", "interval", "7", "proxy", "host", "not.in.use")
			w.pass(time.Minute)
			w.expect(old, "", 0)
			if got := w.setup.settings().Server.Interval; got != 7*time.Minute {
				w.t.Errorf("interval %s", got)
			}
		}},
		{"a wrong digit is undone after three minutes", func(w *world, old string) {
			w.host(old)
			w.want("server", "host", bad)
			w.pass(time.Minute)
			w.pass(trialTime - tick)
			w.expect(bad, "trial", 0)
			w.pass(tick)
			w.expect(old, "refused", 1)
			if got := w.setup.state(); got.Change != "server "+bad+":443 ("+w.setup.settings().Server.Name+")" || !strings.Contains(got.Reason, "no answer") {
				w.t.Errorf("shown: %+v", got)
			}
		}},
		{"and tried again ever more rarely", func(w *world, old string) {
			w.host(old)
			w.want("server", "host", bad)
			w.pass(4 * day)
			var gaps []time.Duration
			for i := 1; i < len(w.tried); i++ {
				gaps = append(gaps, (w.tried[i] - w.tried[i-1]).Truncate(5*time.Minute))
			}
			m, h := time.Minute, time.Hour
			if diff := cmp.Diff([]time.Duration{15 * m, 30 * m, h, 2 * h, 4 * h, 8 * h, 16 * h, day, day}, gaps); diff != "" {
				w.t.Errorf("gaps (-want +got):\n%s", diff)
			}
		}},
		{"a server that was down is followed at the second try", func(w *world, old string) {
			w.host(old)
			w.want("server", "host", good)
			w.pass(time.Minute)
			w.host()
			w.pass(10 * time.Minute)
			w.expect(old, "refused", 1)
			w.host(old, good)
			w.pass(10 * time.Minute)
			w.expect(good, "", 0)
		}},
		{"a server that moved is found although the old address is dead", func(w *world, old string) {
			w.host(old)
			w.want("server", "host", good)
			w.pass(time.Minute)
			w.host()
			w.pass(6 * time.Hour)
			if got := w.setup.state().Attempts; got != 1 {
				w.t.Errorf("%d attempts are held against a change while nothing works", got)
			}
			w.host(good)
			w.pass(20 * time.Minute)
			w.expect(good, "", 0)
		}},
		{"a correction is tried at once", func(w *world, old string) {
			w.host(old, good)
			w.want("server", "host", bad)
			w.pass(5 * time.Minute)
			w.expect(old, "refused", 1)
			w.want("server", "host", good)
			w.pass(2 * time.Minute)
			w.expect(good, "", 0)
		}},
		{"what is taken back is forgotten", func(w *world, old string) {
			w.host(old)
			w.want("server", "host", bad)
			w.pass(5 * time.Minute)
			w.want("server", "host", old)
			w.pass(time.Minute)
			w.expect(old, "", 0)
		}},
		{"what is taken back while on trial is undone at once", func(w *world, old string) {
			w.host(old, good)
			w.inForce = false
			w.want("network", "address", "10.1.2.9")
			w.pass(time.Minute)
			w.expect(old, "trial", 0)
			w.want("network", "address", "10.1.2.3")
			w.pass(tick)
			w.expect(old, "", 0)
		}},
		{"another change while on trial keeps the way back", func(w *world, old string) {
			w.host(old)
			w.inForce = false
			w.want("network", "address", "10.1.2.9")
			w.pass(time.Minute)
			w.want("network", "address", "10.1.2.9", "server", "host", bad)
			w.pass(trialTime + 2*tick)
			w.expect(old, "refused", 1)
			if got := w.setup.settings().Interface.Address.String(); got != "10.1.2.3/24" {
				w.t.Errorf("address %s", got)
			}
		}},
		{"a poll over the old network proves nothing", func(w *world, old string) {
			w.inForce = false
			w.want("network", "address", "10.1.2.9")
			w.pass(time.Minute + trialTime)
			w.expect(old, "refused", 1)
			w.inForce = true
			w.pass(20 * time.Minute)
			w.expect(old, "", 0)
			if got := w.setup.settings().Interface.Address.String(); got != "10.1.2.9/24" {
				w.t.Errorf("address %s", got)
			}
		}},
		{"a server's address is proved without the host's network", func(w *world, old string) {
			w.inForce = false
			w.want("server", "host", good)
			w.pass(2 * time.Minute)
			w.expect(good, "", 0)
		}},
		{"what is no risk is taken over from a refused answer", func(w *world, old string) {
			w.host(old)
			w.want("server", "host", bad)
			w.pass(5 * time.Minute)
			w.want("server", "host", bad, "server", "interval", "9")
			w.pass(time.Minute)
			w.expect(old, "refused", 1)
			if got := w.setup.settings().Server.Interval; got != 9*time.Minute {
				w.t.Errorf("interval %s", got)
			}
		}},
		{"a restart goes on with the refusal", func(w *world, old string) {
			w.host(old)
			w.want("server", "host", bad)
			w.pass(5 * time.Minute)
			w.boot()
			w.pass(5 * time.Minute)
			w.expect(old, "refused", 1)
			w.pass(30 * time.Minute)
			w.expect(old, "refused", 2)
		}},
		{"a clock that was set far back does not put off the next try", func(w *world, old string) {
			w.host(old)
			w.want("server", "host", bad)
			w.pass(5 * time.Minute)
			w.now = w.now.Add(-1000 * day)
			w.boot()
			w.pass(20 * time.Minute)
			w.expect(old, "refused", 2)
		}},
		{"an archive that a person put there counts", func(w *world, old string) {
			w.host(old)
			w.want("server", "host", bad)
			w.pass(5 * time.Minute)
			w.replace("192.0.2.77")
			w.boot()
			w.expect("192.0.2.77", "", 0)
		}},
		{"the wanted archive put there by a person is on trial", func(w *world, old string) {
			w.host(old)
			w.want("server", "host", bad)
			w.pass(5 * time.Minute)
			w.replace(bad)
			w.boot()
			w.expect(bad, "trial", 1)
			w.pass(trialTime + tick)
			w.expect(old, "refused", 1)
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			test.run(w, w.old())
		})
	}
}

// replace puts an archive with another server there.
func (w *world) replace(host string) {
	w.t.Helper()
	archive, _, err := config.Open(filepath.Join(w.dir, "conf"))
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := archive.Update(config.Changes{Values: []config.Value{{Section: "server", Key: "host", Text: &host}}}); err != nil {
		w.t.Fatal(err)
	}
	if err := archive.Save(); err != nil {
		w.t.Fatal(err)
	}
}

// Whatever the step before which it is killed, the sensor comes back to settings
// that work, and to the wanted ones if these do.
func TestKilledBetweenAnyTwoSteps(t *testing.T) {
	tests := []struct {
		name, wanted string
		works        bool
	}{{"a change that works", good, true}, {"a change that does not", bad, false}}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			story := func(killAt int) (steps int) {
				w := newWorld(t)
				old := w.old()
				w.host(old, good)
				w.killAt = killAt
				w.want("server", "host", test.wanted)
				w.pass(30 * time.Minute)
				want := old
				if test.works {
					want = test.wanted
					w.expect(want, "", 0)
				}
				if got := w.setup.settings().Server.Host; got != want {
					t.Errorf("killed before step %d: server %s, want %s", killAt, got, want)
				}
				// Now the server takes it back.
				w.want("server", "host", old)
				w.pass(20 * time.Minute)
				w.expect(old, "", 0)
				if killAt > 0 && w.killAt > 0 {
					t.Errorf("there was no step %d", killAt)
				}
				return w.steps
			}
			t.Parallel()
			steps := story(0)
			if steps < 5 {
				t.Fatalf("%d steps", steps)
			}
			for n := 1; n <= steps; n++ {
				story(n)
			}
		})
	}
}

func TestArchiveIsWrittenAtTheNextPoll(t *testing.T) {
	w := newWorld(t)
	// A directory in the place of the temporary file is like a disk that fails.
	obstacle := filepath.Join(w.dir, "conf", ".s1.tar.gz.new")
	if err := os.MkdirAll(filepath.Join(obstacle, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	w.want("server", "host", good, "server", "interval", "9")
	w.pass(5 * time.Minute)
	if got := w.setup.settings().Server.Host; got != good || w.setup.trial() {
		t.Fatalf("server %s, on trial %v", got, w.setup.trial())
	}
	// What was proved outlives a restart even without the archive.
	w.boot()
	if got := w.setup.settings().Server.Host; got != good {
		t.Errorf("server %s after a restart", got)
	}
	if due := w.setup.due(); !due.IsZero() {
		t.Errorf("something is due at %s", due)
	}
	if err := os.RemoveAll(obstacle); err != nil {
		t.Fatal(err)
	}
	w.pass(time.Minute)
	w.expect(good, "", 0)
}

func TestNoTrialWithoutAWayBack(t *testing.T) {
	w := newWorld(t)
	if err := os.Remove(filepath.Join(w.dir, "state")); err != nil {
		t.Fatal(err)
	}
	w.want("server", "host", good)
	_, err := w.setup.take(w.now, w.wants, w.setup.ticket(true))
	if err == nil || !strings.Contains(err.Error(), "try the server's settings") {
		t.Errorf("error %v", err)
	}
	if err := os.Mkdir(filepath.Join(w.dir, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	w.expect(w.old(), "", 0)
	w.pass(2 * time.Minute)
	w.expect(good, "", 0)
}

func TestAnswerToAnOlderStateIsIgnored(t *testing.T) {
	w := newWorld(t)
	old := w.setup.ticket(true)
	w.want("server", "host", good)
	w.pass(2 * time.Minute)
	w.want("server", "host", bad)
	if changed, err := w.setup.take(w.now, w.wants, old); changed || err != nil {
		t.Errorf("changed %v, %v", changed, err)
	}
	w.expect(good, "", 0)
}

func TestDamagedJournal(t *testing.T) {
	w := newWorld(t)
	w.host(w.old())
	w.want("server", "host", bad)
	w.pass(5 * time.Minute)
	whole, err := os.ReadFile(string(w.journal()))
	if err != nil {
		t.Fatal(err)
	}
	replaced := func(old, by string) []byte { return []byte(strings.Replace(string(whole), old, by, 1)) }
	tests := map[string][]byte{
		"empty":         {},
		"half":          whole[:len(whole)/2],
		"unknown phase": replaced(`"refused"`, `"other"`),
		"unknown field": replaced(`{"phase"`, `{"more":1,"phase"`),
		"no archive":    replaced(`"before":"`, `"before":"AAAA`),
		"negative":      replaced(`"attempts":1`, `"attempts":-1`),
		"giant":         make([]byte, maxJournal+1),
	}
	for name, data := range tests {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(string(w.journal()), data, 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := openSetup(filepath.Join(w.dir, "conf"), zap.NewNop())
			if err != nil {
				t.Fatal(err)
			}
			s.resume(w.journal(), w.now)
			if s.settings().Server.Host != w.old() || s.state().State != "" {
				t.Errorf("server %s, %+v", s.settings().Server.Host, s.state())
			}
			if _, err := os.Stat(string(w.journal())); !os.IsNotExist(err) {
				t.Errorf("the damaged journal is still there: %v", err)
			}
		})
	}
	if info, err := os.Stat(filepath.Join(w.dir, "state")); err != nil || !info.IsDir() {
		t.Error(err)
	}
}

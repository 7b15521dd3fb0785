package selftest

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"honeysens.org/dockersensor/shared/helperapi"
)

// world is a sensor whose parts can be broken.
type world struct {
	observed    helperapi.Observed
	outcome     helperapi.ProbeOutcome
	helperErr   error
	probeErr    error
	collectErr  error
	led, silent bool
	// refusesV6: the honeypots have IPv4 alone.
	refusesV6 bool
	// reports is the service that reports visitors, after a time.
	reports string
	after   time.Duration
	marks   map[netip.Addr]chan string
	probes  []helperapi.Probe
}

func newWorld() *world {
	return &world{
		observed: helperapi.Observed{Applied: true, Interface: helperapi.InterfaceObserved{Name: "eth0"},
			Services: []helperapi.ServiceObserved{{ID: "1"}, {ID: "2"}}},
		outcome: helperapi.ProbeAnswered, led: true, after: 6 * time.Second, marks: map[netip.Addr]chan string{},
	}
}

func (w *world) Observe(context.Context) (helperapi.Observed, error) {
	seen := w.observed
	seen.Services = append([]helperapi.ServiceObserved{}, w.observed.Services...)
	return seen, w.helperErr
}

func (w *world) Probe(_ context.Context, want helperapi.Probe) (helperapi.ProbeResult, error) {
	w.probes = append(w.probes, want)
	if w.probeErr != nil {
		return helperapi.ProbeResult{}, w.probeErr
	}
	visited := "1"
	if want.Port.Number == 22 {
		visited = "2"
	}
	if w.led {
		for n := range w.observed.Services {
			if w.observed.Services[n].ID == visited {
				w.observed.Services[n].Redirected.Packets++
			}
		}
	}
	if want.Source.Is6() && w.refusesV6 {
		return helperapi.ProbeResult{Outcome: helperapi.ProbeRefused}, nil
	}
	if !w.silent {
		by := visited
		if w.reports != "" {
			by = w.reports
		}
		mark := w.marks[want.Source]
		time.AfterFunc(w.after, func() { mark <- by })
	}
	return helperapi.ProbeResult{Outcome: w.outcome}, nil
}

func (w *world) addresses(all ...string) {
	for _, text := range all {
		w.observed.Interface.Addresses = append(w.observed.Interface.Addresses, netip.MustParsePrefix(text))
	}
}

func (w *world) mark(source netip.Addr) <-chan string {
	w.marks[source] = make(chan string, 1)
	return w.marks[source]
}

func recon() Service { return Service{ID: "1", Label: "recon", CatchAll: true} }

func ssh() Service {
	return Service{ID: "2", Label: "ssh", Ports: []helperapi.Assignment{{Port: helperapi.Port{Protocol: helperapi.TCP, Number: 22}, To: 2222}}}
}

func TestRunSaysWhereItBreaks(t *testing.T) {
	broken := func(part string) []Finding { return []Finding{{Verdict: Broken, Part: part}} }
	one := func(v Verdict, part string) []Finding {
		return []Finding{{ID: "2", Label: "ssh", Verdict: v, Part: part}}
	}
	cases := map[string]struct {
		change   func(*world)
		services []Service
		want     []Finding
		good     bool
		text     string
	}{
		"all works": {func(*world) {}, []Service{recon(), ssh()},
			[]Finding{{ID: "1", Label: "recon", Verdict: Works}, {ID: "2", Label: "ssh", Verdict: Works}}, true, "reported after 6.0 s"},
		"no helper":                 {func(w *world) { w.helperErr = errors.New("not there") }, []Service{ssh()}, broken(PartHelper), false, "not there"},
		"nothing in force":          {func(w *world) { w.observed.Applied = false }, []Service{ssh()}, broken(PartHelper), false, "in force"},
		"interface down":            {func(w *world) { w.observed.Interface.Problem = "eth0 is down" }, []Service{ssh()}, broken(PartInterface), false, "is down"},
		"collector does not listen": {func(w *world) { w.collectErr = errors.New("in use") }, []Service{ssh()}, broken(PartCollector), false, "in use"},
		"probe impossible":          {func(w *world) { w.probeErr = errors.New("no module") }, []Service{ssh()}, one(Broken, PartInterface), false, "no module"},
		"not redirected": {func(w *world) { w.led, w.silent, w.outcome = false, true, helperapi.ProbeSilent }, []Service{ssh()},
			one(Broken, PartRedirect), false, "firewall"},
		"the host has the port": {func(w *world) {
			w.led, w.silent = false, true
			w.observed.Conflicts = []helperapi.Conflict{{Port: helperapi.Port{Protocol: helperapi.TCP, Number: 22}, Service: "2", Winner: "host", Reason: "sshd"}}
		}, []Service{ssh()}, one(Broken, PartRedirect), false, "sshd"},
		"somebody else answers": {func(w *world) { w.led, w.silent = false, true }, []Service{ssh()}, one(Broken, PartRedirect), false, "something else"},
		"honeypot refuses":      {func(w *world) { w.silent, w.outcome = true, helperapi.ProbeRefused }, []Service{ssh()}, one(Broken, PartHoneypot), false, "refuses"},
		"honeypot is silent":    {func(w *world) { w.silent, w.outcome = true, helperapi.ProbeSilent }, []Service{ssh()}, one(Broken, PartHoneypot), false, "no answer"},
		"nothing reported":      {func(w *world) { w.silent = true }, []Service{ssh()}, one(Unproved, PartCollector), false, "nothing was reported"},
		"recon reports nothing": {func(w *world) { w.silent = true }, []Service{recon()}, []Finding{{ID: "1", Label: "recon", Verdict: Broken, Part: PartCollector}}, false, "nothing was reported"},
		"another one reports":   {func(w *world) { w.reports = "1" }, []Service{ssh()}, one(Broken, PartRedirect), false, "service 1"},
		"not running": {func(*world) {}, []Service{{ID: "2", Label: "ssh", Problem: "it is scheduled"}}, one(Broken, PartHoneypot), false,
			"scheduled"},
		"raw":     {func(*world) {}, []Service{{ID: "2", Label: "ssh", Raw: true}}, one(Skipped, ""), false, "raw"},
		"no port": {func(*world) {}, []Service{{ID: "2", Label: "ssh"}}, one(Skipped, ""), false, "no port"},
		"nothing": {func(*world) {}, nil, nil, false, ""},
		"both families": {func(w *world) { w.addresses("192.0.2.1/24", "2001:db8::1/64", "fe80::1/64") }, []Service{ssh()},
			[]Finding{{ID: "2", Label: "ssh", Verdict: Works}, {ID: "2", Label: "ssh", Verdict: Works, IPv6: true}}, true, "reported after"},
		"IPv6 alone": {func(w *world) { w.addresses("2001:db8::1/64") }, []Service{ssh()},
			[]Finding{{ID: "2", Label: "ssh", Verdict: Works, IPv6: true}}, true, "reported after"},
		"a honeypot with IPv4 alone": {func(w *world) {
			w.addresses("192.0.2.1/24", "2001:db8::1/64")
			w.refusesV6 = true
		}, []Service{ssh()}, []Finding{{ID: "2", Label: "ssh", Verdict: Works}, {ID: "2", Label: "ssh", Verdict: Skipped, IPv6: true}}, true, ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				c.change(w)
				var got []Finding
				test := Test{Helper: w, Mark: w.mark, Collector: func() (string, error) { return "", w.collectErr }, Tell: func(f Finding) { got = append(got, f) }}
				if good := test.Run(t.Context(), c.services); good != c.good {
					t.Errorf("good is %v", good)
				}
				if diff := cmp.Diff(c.want, got, cmpopts.IgnoreFields(Finding{}, "Text", "Took", "Port"), cmpopts.SortSlices(func(a, b Finding) bool { return a.ID < b.ID || a.ID == b.ID && b.IPv6 && !a.IPv6 })); diff != "" {
					t.Error(diff)
				}
				for _, f := range got {
					if !strings.Contains(f.Text, c.text) {
						t.Errorf("text %q has no %q", f.Text, c.text)
					}
				}
				for _, p := range w.probes {
					if !helperapi.IsProbe(p.Source) {
						t.Errorf("visitor from %v", p.Source)
					}
				}
			})
		})
	}
}

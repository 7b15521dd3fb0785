package selftest

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"honeysens.org/dockersensor/shared/helperapi"
)

// patience is how long a honeypot may take to report. Recon waits for six seconds
// of silence; others wait until they find the connection closed.
const patience = 30 * time.Second

// Service is a honeypot that is to be visited.
type Service struct {
	ID, Label     string
	Ports         []helperapi.Assignment
	CatchAll, Raw bool
	// Problem is why it does not run, or "".
	Problem string
}

// Parts of the way at which it can break.
const (
	PartHelper    = "helper"
	PartInterface = "interface"
	PartRedirect  = "redirect"
	PartHoneypot  = "honeypot"
	PartCollector = "collector"
)

// Verdict is what came of one visit.
type Verdict string

// The verdicts. Unproved: the honeypot answered and did not report, which is how
// some are that report only what was typed.
const (
	Works    Verdict = "works"
	Unproved Verdict = "unproved"
	Broken   Verdict = "broken"
	Skipped  Verdict = "skipped"
)

// Finding is about one service, or about all when it has no id.
type Finding struct {
	ID, Label string
	// Port is the one that was visited, or unset, and IPv6 how.
	Port    helperapi.Port
	IPv6    bool
	Verdict Verdict
	// Part is where the way breaks.
	Part string
	Text string
	// Took is the time from the visit to the report.
	Took time.Duration
}

// Helper makes the visits.
type Helper interface {
	Observe(ctx context.Context) (helperapi.Observed, error)
	Probe(ctx context.Context, want helperapi.Probe) (helperapi.ProbeResult, error)
}

// Test is one run over all services.
type Test struct {
	// Helper makes visits, and tells what is redirected.
	Helper Helper
	// Mark announces a visitor, and tells which service reports it.
	Mark func(source netip.Addr) <-chan string
	// Collector is the address at which it listens, or why it does not.
	Collector func() (string, error)
	// Tell hears each finding, one at a time.
	Tell func(Finding)
}

// Run visits the services one after the other, and waits for their reports. It
// tells whether nothing is broken and something works.
func (t Test) Run(ctx context.Context, services []Service) bool {
	r := &run{Test: t}
	networks := r.ground(ctx)
	if len(networks) == 0 {
		return false
	}
	for _, service := range services {
		r.visitAll(ctx, service, networks)
	}
	r.waiting.Wait()
	return r.works > 0 && r.broken == 0
}

type run struct {
	Test
	waiting sync.WaitGroup

	mu            sync.Mutex
	works, broken int
}

func (r *run) tell(f Finding) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch f.Verdict {
	case Works:
		r.works++
	case Broken:
		r.broken++
	case Unproved, Skipped:
	}
	r.Tell(f)
}

// ground finds fault with what all services need, and returns where visitors can
// come from.
func (r *run) ground(ctx context.Context) []netip.Prefix {
	observed, err := r.Helper.Observe(ctx)
	switch {
	case err != nil:
		r.tell(Finding{Verdict: Broken, Part: PartHelper, Text: err.Error()})
	case !observed.Applied:
		r.tell(Finding{Verdict: Broken, Part: PartHelper, Text: "no network is in force yet"})
	case observed.Interface.Problem != "":
		r.tell(Finding{Verdict: Broken, Part: PartInterface, Text: observed.Interface.Problem})
	default:
		if _, err := r.Collector(); err != nil {
			r.tell(Finding{Verdict: Broken, Part: PartCollector, Text: err.Error()})
			return nil
		}
		return networks(observed.Interface.Addresses)
	}
	return nil
}

// networks are those of visitors to an interface with these addresses. Without
// any the helper says what is missing.
func networks(addresses []netip.Prefix) []netip.Prefix {
	var v4, v6 bool
	for _, a := range addresses {
		if addr := a.Addr(); !addr.IsLinkLocalUnicast() {
			v4, v6 = v4 || addr.Is4(), v6 || addr.Is6()
		}
	}
	switch {
	case v4 && v6:
		return []netip.Prefix{helperapi.ProbeNetwork(), helperapi.ProbeNetworkV6()}
	case v6:
		return []netip.Prefix{helperapi.ProbeNetworkV6()}
	}
	return []netip.Prefix{helperapi.ProbeNetwork()}
}

// visitAll visits a service from each network.
func (r *run) visitAll(ctx context.Context, s Service, networks []netip.Prefix) {
	found := Finding{ID: s.ID, Label: s.Label}
	if s.Problem != "" {
		r.tell(broken(found, PartHoneypot, s.Problem))
		return
	}
	port, reason := s.door()
	if reason != "" {
		found.Verdict, found.Text = Skipped, reason
		r.tell(found)
		return
	}
	found.Port = port
	for _, network := range networks {
		found.IPv6 = network.Addr().Is6()
		r.visit(ctx, s, found, visitor(network))
	}
}

// visit makes one visit, and leaves the wait for the report to the background:
// the next visitor can come meanwhile.
func (r *run) visit(ctx context.Context, s Service, found Finding, source netip.Addr) {
	port := found.Port
	reported := r.Mark(source)
	before, _ := r.Helper.Observe(ctx)
	start := time.Now()
	result, err := r.Helper.Probe(ctx, helperapi.Probe{Source: source, Port: port})
	if err != nil {
		r.tell(broken(found, PartInterface, err.Error()))
		return
	}
	after, err := r.Helper.Observe(ctx)
	if err != nil {
		r.tell(broken(found, PartHelper, err.Error()))
		return
	}
	if part, text := judge(s, port, source, result, before, after); part != "" && !arrived(reported) {
		found = broken(found, part, text)
		if found.IPv6 && result.Outcome == helperapi.ProbeRefused && part == PartHoneypot {
			found.Verdict, found.Part, found.Text = Skipped, "", "it was led there, and the honeypot refuses it: many have IPv4 alone"
		}
		r.tell(found)
		return
	}
	r.waiting.Go(func() { r.await(ctx, s, found, start, reported) })
}

func broken(f Finding, part, text string) Finding {
	f.Verdict, f.Part, f.Text = Broken, part, text
	return f
}

// arrived tells whether there is a report already, and leaves it there.
func arrived(reported <-chan string) bool { return len(reported) > 0 }

func (r *run) await(ctx context.Context, s Service, found Finding, start time.Time, reported <-chan string) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case by := <-reported:
		found.Took = time.Since(start)
		if by != s.ID {
			r.tell(broken(found, PartRedirect, fmt.Sprintf("service %s has reported it", by)))
			return
		}
		found.Verdict, found.Text = Works, fmt.Sprintf("redirected, answered, reported after %.1f s", found.Took.Seconds())
		if found.Port.Protocol == helperapi.UDP {
			found.Text = fmt.Sprintf("redirected, reported after %.1f s", found.Took.Seconds())
		}
		r.tell(found)
	case <-timer.C:
		if s.CatchAll || found.Port.Protocol == helperapi.UDP {
			r.tell(broken(found, PartCollector, fmt.Sprintf("redirected, and nothing was reported within %.0f s", patience.Seconds())))
			return
		}
		found.Verdict, found.Part = Unproved, PartCollector
		found.Text = fmt.Sprintf("redirected and answered, but nothing was reported within %.0f s: some honeypots report only who logs in", patience.Seconds())
		r.tell(found)
	case <-ctx.Done():
		r.tell(broken(found, PartCollector, "the test was ended"))
	}
}

// judge says where the way to a service breaks, or "" when it does not.
func judge(s Service, port helperapi.Port, source netip.Addr, result helperapi.ProbeResult, before, after helperapi.Observed) (part, text string) {
	led := count(after, s.ID) > count(before, s.ID)
	answered := result.Outcome == helperapi.ProbeAnswered
	name := after.Interface.Name
	switch {
	case !led && conflict(after, port) != "":
		return PartRedirect, conflict(after, port)
	case !led && answered:
		return PartRedirect, fmt.Sprintf("something else than the service answers at port %s of %s", port, name)
	case !led:
		return PartRedirect, fmt.Sprintf("what arrives at %s for port %s does not reach the service: a firewall of the host drops it "+
			"(it came from %v), or the redirect is not there; manager doctor says more", name, port, source)
	case answered || port.Protocol == helperapi.UDP:
		return "", ""
	case result.Outcome == helperapi.ProbeRefused:
		return PartHoneypot, "it was led there, and the honeypot refuses the connection: it does not wait at its port"
	}
	return PartHoneypot, "it was led there, and no answer came out of " + name
}

func count(o helperapi.Observed, id string) uint64 {
	for _, s := range o.Services {
		if s.ID == id {
			return s.Redirected.Packets
		}
	}
	return 0
}

func conflict(o helperapi.Observed, port helperapi.Port) string {
	for _, c := range o.Conflicts {
		if c.Port == port && c.Winner == "host" {
			return "the host keeps the port: " + c.Reason
		}
	}
	return ""
}

// door returns the port to visit a service at, or why there is none.
func (s Service) door() (helperapi.Port, string) {
	if s.Raw {
		return helperapi.Port{}, "it has raw network access: nothing is redirected to it"
	}
	for _, protocol := range []helperapi.Protocol{helperapi.TCP, helperapi.UDP} {
		i := slices.IndexFunc(s.Ports, func(a helperapi.Assignment) bool { return a.Port.Protocol == protocol })
		if i >= 0 {
			return s.Ports[i].Port, ""
		}
	}
	if s.CatchAll {
		// One of those that hosts give to nobody by themselves.
		return helperapi.Port{Protocol: helperapi.TCP, Number: 20000 + uint16(random()%10000)}, "" // #nosec G115 -- below 10000
	}
	return helperapi.Port{}, "no port leads to it"
}

// visitor is an address of a network but its first and last.
func visitor(network netip.Prefix) netip.Addr {
	raw := network.Addr().AsSlice()
	host := raw[len(raw)-4:]
	// Of IPv6 as much as there is of IPv4: some 131,000.
	const size = 1 << 17
	binary.BigEndian.PutUint32(host, binary.BigEndian.Uint32(host)+1+random()%(size-2))
	addr, _ := netip.AddrFromSlice(raw)
	return addr
}

func random() uint32 {
	var raw [4]byte
	_, _ = rand.Read(raw[:])
	return binary.NativeEndian.Uint32(raw[:])
}

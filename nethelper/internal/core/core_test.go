package core

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap/zaptest"

	"honeysens.org/dockersensor/nethelper/internal/attach"
	"honeysens.org/dockersensor/nethelper/internal/link"
	"honeysens.org/dockersensor/nethelper/internal/nft"
	"honeysens.org/dockersensor/nethelper/internal/passage"
	"honeysens.org/dockersensor/nethelper/internal/policy"
	"honeysens.org/dockersensor/nethelper/internal/ruleset"
	"honeysens.org/dockersensor/shared/helperapi"
)

// fakeHost plays all parts, writes down what is done to it, and fails where it
// is told to.
type fakeHost struct {
	steps []string
	// fail maps a step to how many times it still fails.
	fail     map[string]int
	gone     map[int]bool
	attached map[string]netip.Addr
	right    bool
	// listeners and programs are the host's own; shown is what packets showed.
	listeners map[helperapi.Port]Listener
	programs  map[Listener]string
	shown     []helperapi.Conflict
	published []helperapi.Conflict
	table     *ruleset.Table
}

func newFakeHost() *fakeHost {
	return &fakeHost{fail: map[string]int{}, gone: map[int]bool{}, attached: map[string]netip.Addr{}, right: true}
}

var errBroken = errors.New("broken")

func (f *fakeHost) step(format string, args ...any) error {
	step := fmt.Sprintf(format, args...)
	f.steps = append(f.steps, step)
	if f.fail[step] > 0 {
		f.fail[step]--
		return errBroken
	}
	return nil
}

func (f *fakeHost) take() []string {
	steps := f.steps
	f.steps = nil
	return steps
}

func (f *fakeHost) core(t *testing.T) *Core {
	t.Helper()
	return New(Config{
		SensorID: strings.Repeat("ab", 32), Rights: policy.Rights{Iface: "eth0", Egress: helperapi.EgressDeny},
		HostPorts: helperapi.HostPortsProtect, StateFile: filepath.Join(t.TempDir(), "network.json"),
	}, Parts{Table: fakeTable{f}, Passage: fakePassage{f}, Links: fakeLinks{f}, Services: fakeServices{f}, Interface: fakeInterface{f}, Host: fakeKernel{f}}, zaptest.NewLogger(t))
}

type (
	fakeTable    struct{ *fakeHost }
	fakePassage  struct{ *fakeHost }
	fakeLinks    struct{ *fakeHost }
	fakeServices struct{ *fakeHost }
	fakeKernel   struct{ *fakeHost }

	fakeInterface struct{ *fakeHost }
)

func (f fakeTable) Apply(_ context.Context, want *ruleset.Table) error {
	if err := f.step("table"); err != nil {
		return err
	}
	f.table = want
	return nil
}
func (f fakeTable) Heartbeat(context.Context) error { return f.step("beat") }
func (f fakeTable) Observe(context.Context) (nft.Observed, error) {
	return nft.Observed{Conflicts: f.shown, Published: f.published, Services: map[string]nft.Service{"1": {Redirected: helperapi.Counter{Packets: 7}}}, Heals: 2}, nil
}
func (f fakeTable) Lacks() ruleset.Lacks         { return ruleset.Lacks{Ports: true} }
func (f fakeTable) Remove(context.Context) error { return f.step("remove table") }
func (f fakeTable) Watch(ctx context.Context, _ func(context.Context)) error {
	<-ctx.Done()
	return nil
}

func (f fakePassage) Ensure(context.Context, passage.Config) ([]helperapi.Firewall, error) {
	return []helperapi.Firewall{{Kind: "iptables-nft"}}, f.step("passage")
}

func (fakePassage) Heals() (uint64, time.Time) { return 10, time.Time{} }

func (fakePassage) Watch(ctx context.Context, _ func(context.Context)) error {
	<-ctx.Done()
	return nil
}

func (f fakePassage) Remove(context.Context) error { return f.step("remove passage") }

func (f fakeLinks) Ensure(want link.Layout) (link.Forwarding, error) {
	return link.Forwarding{WasOffV4: true}, f.step("links %v", want.V4)
}
func (f fakeLinks) Right(link.Layout, []string) (bool, error) { return f.right, nil }
func (f fakeLinks) Remove() error                             { return f.step("remove links") }

func (f fakeServices) Attach(_ context.Context, n attach.Network, s *attach.Sandbox) (attach.Attachment, error) {
	if err := f.step("attach %c", s.ContainerID[0]); err != nil {
		return attach.Attachment{}, err
	}
	if _, there := f.attached[s.ContainerID]; !there {
		addr := n.Layout.GatewayV4.Next()
		for range f.attached {
			addr = addr.Next()
		}
		f.attached[s.ContainerID] = addr
	}
	return attach.Attachment{ContainerID: s.ContainerID, V4: f.attached[s.ContainerID], Port: "veth-" + s.ContainerID[:1], MAC: net.HardwareAddr{2, 0, 0, 0, 0, s.ContainerID[0]}}, nil
}

func (f fakeServices) Prune(_ context.Context, _ attach.Network, keep map[string]bool) error {
	kept := ""
	for id := range f.attached {
		if !keep[id] {
			delete(f.attached, id)
		} else {
			kept += id[:1]
		}
	}
	letters := []byte(kept)
	slices.Sort(letters)
	return f.step("prune to %q", letters)
}

func (f fakeInterface) Ensure(want helperapi.Interface, _ []netip.Prefix) error {
	return f.step("interface %s", want.Mode)
}
func (f fakeInterface) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}
func (f fakeInterface) Observe() (helperapi.InterfaceObserved, error) {
	return helperapi.InterfaceObserved{Name: "eth0", Up: true}, nil
}
func (f fakeInterface) Remove() error { return f.step("remove interface") }

func (f fakeKernel) Uses(string) ([]policy.Use, error) { return nil, nil }
func (f fakeKernel) MTU(string) (int, error)           { return 1500, nil }
func (f fakeKernel) Listeners() (map[helperapi.Port]Listener, error) {
	return f.listeners, nil
}
func (f fakeKernel) Programs([]Listener) map[Listener]string { return f.programs }
func (f fakeKernel) HasIPv6() bool                           { return false }
func (f fakeKernel) Connections() uint32                     { return 800 }
func (f fakeKernel) Prove(claim helperapi.Sandbox) (*attach.Sandbox, error) {
	if f.gone[claim.PID] {
		return nil, &helperapi.Error{Kind: helperapi.KindUnavailable, Message: "gone"}
	}
	return &attach.Sandbox{ContainerID: claim.ContainerID}, nil
}
func (f fakeKernel) WatchLinks(ctx context.Context, _ func()) error {
	<-ctx.Done()
	return nil
}

// wanted has a service for each letter.
func wanted(letters string) helperapi.Network {
	n := helperapi.Network{
		Interface: helperapi.Interface{Name: "eth0", Mode: helperapi.ModeNone},
		Bridge:    helperapi.Bridge{V4: netip.MustParsePrefix("10.10.10.0/24"), CollectorPort: 5556},
		Egress:    helperapi.EgressDeny,
	}
	for i, letter := range letters {
		n.Services = append(n.Services, helperapi.Service{
			ID: fmt.Sprint(i + 1), Sandbox: helperapi.Sandbox{ContainerID: strings.Repeat(string(letter), 64), PID: 100 + int(letter)},
			Ports: []helperapi.Assignment{{Port: helperapi.Port{Protocol: helperapi.TCP, Number: uint16(1000 + i)}, To: 22}},
		})
	}
	return n
}

func mustApply(t *testing.T, c *Core, want helperapi.Network) helperapi.Observed {
	t.Helper()
	seen, err := c.Apply(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	return seen
}

func wantSteps(t *testing.T, f *fakeHost, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, f.take()); diff != "" {
		t.Error(diff)
	}
}

func TestApplyInOrder(t *testing.T) {
	f := newFakeHost()
	c := f.core(t)
	seen := mustApply(t, c, wanted("ab"))
	wantSteps(t, f, "interface none", "links 10.10.10.0/24", "attach a", "attach b", "table", "passage", `prune to "ab"`)
	if !seen.Applied || len(seen.Services) != 2 || seen.Services[0].Redirected.Packets != 7 || len(seen.Firewalls) != 1 || seen.Heals != 12 {
		t.Errorf("observed %+v", seen)
	}
	// The host keeps 800 connections, and its kernel cannot filter at ports.
	if len(seen.Lacks) != 1 || f.table.Ports != nil || !strings.Contains(f.table.Text(), "ct count over 100 ") {
		t.Errorf("lacks %q, rules %s", seen.Lacks, f.table.Text())
	}
	mustApply(t, c, wanted("b"))
	wantSteps(t, f, "interface none", "links 10.10.10.0/24", "attach b", "table", "passage", `prune to "b"`)
}

func TestRefusalChangesNothing(t *testing.T) {
	cases := map[string]func(*helperapi.Network, *fakeHost){
		"invalid":      func(n *helperapi.Network, _ *fakeHost) { n.Egress = "moon" },
		"denied":       func(n *helperapi.Network, _ *fakeHost) { n.Egress = helperapi.EgressAll },
		"sandbox gone": func(n *helperapi.Network, f *fakeHost) { f.gone[n.Services[1].Sandbox.PID] = true },
	}
	for name, change := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFakeHost()
			want := wanted("ab")
			change(&want, f)
			_, err := f.core(t).Apply(t.Context(), want)
			var refused *helperapi.Error
			if !errors.As(err, &refused) {
				t.Errorf("got %v", err)
			}
			wantSteps(t, f)
		})
	}
}

func TestFailureBringsTheStateBeforeBack(t *testing.T) {
	for _, failing := range []string{"table", "passage", `prune to "ac"`, "links 10.10.10.0/24"} {
		t.Run(failing, func(t *testing.T) {
			f := newFakeHost()
			c := f.core(t)
			mustApply(t, c, wanted("ab"))
			f.take()
			f.fail[failing] = 1
			if _, err := c.Apply(t.Context(), wanted("ac")); !errors.Is(err, errBroken) {
				t.Errorf("got %v", err)
			}
			steps := f.take()
			last := []string{"interface none", "links 10.10.10.0/24", "attach a", "attach b", "table", "passage", `prune to "ab"`}
			if len(steps) < len(last) || !slices.Equal(steps[len(steps)-len(last):], last) {
				t.Errorf("steps %q, want them to end with %q", steps, last)
			}
			seen, err := c.Observe(t.Context())
			if err != nil || len(seen.Services) != 2 || seen.Services[1].ContainerID[0] != 'b' {
				t.Errorf("in force: %+v, %v", seen.Services, err)
			}
		})
	}
}

func TestFirstFailureLeavesNothing(t *testing.T) {
	f := newFakeHost()
	f.fail["table"] = 1
	c := f.core(t)
	if _, err := c.Apply(t.Context(), wanted("a")); !errors.Is(err, errBroken) {
		t.Errorf("got %v", err)
	}
	wantSteps(t, f, "interface none", "links 10.10.10.0/24", "attach a", "table", "remove passage", "remove table", `prune to ""`, "remove links", "remove interface")
	if seen, err := c.Observe(t.Context()); err != nil || seen.Applied {
		t.Errorf("observed %+v, %v", seen, err)
	}
}

func TestFailureOnTheWayBackIsAnUnknownOutcome(t *testing.T) {
	f := newFakeHost()
	c := f.core(t)
	mustApply(t, c, wanted("a"))
	f.fail["table"] = 2
	_, err := c.Apply(t.Context(), wanted("b"))
	var known *helperapi.Error
	if !errors.As(err, &known) || known.Kind != helperapi.KindUnknownOutcome {
		t.Errorf("got %v", err)
	}
}

func TestAttachmentMakesRoomAndTriesAgain(t *testing.T) {
	f := newFakeHost()
	c := f.core(t)
	mustApply(t, c, wanted("a"))
	f.take()
	f.fail["attach b"] = 1
	mustApply(t, c, wanted("b"))
	wantSteps(t, f, "interface none", "links 10.10.10.0/24", "attach b", `prune to ""`, "attach b", "table", "passage", `prune to "b"`)
}

func TestAdoptGoesOnWithTheServicesThatLive(t *testing.T) {
	f := newFakeHost()
	before := f.core(t)
	mustApply(t, before, wanted("ab"))
	f.take()
	after := New(before.cfg, before.parts, zaptest.NewLogger(t))
	f.gone[100+'a'] = true
	if err := after.Adopt(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantSteps(t, f, "interface none", "links 10.10.10.0/24", "attach b", "table", "passage", `prune to "b"`)
	if seen, err := after.Observe(t.Context()); err != nil || !seen.Applied || len(seen.Services) != 1 || seen.Services[0].ID != "2" {
		t.Errorf("observed %+v, %v", seen, err)
	}
}

func TestRemoveGoesOnAfterErrorsAndForgets(t *testing.T) {
	f := newFakeHost()
	c := f.core(t)
	mustApply(t, c, wanted("a"))
	f.take()
	f.fail["remove table"] = 1
	if err := c.Remove(t.Context()); !errors.Is(err, errBroken) {
		t.Errorf("got %v", err)
	}
	wantSteps(t, f, "remove passage", "remove table", `prune to ""`, "remove links", "remove interface")
	if err := New(c.cfg, c.parts, zaptest.NewLogger(t)).Adopt(t.Context()); err != nil {
		t.Error(err)
	}
	wantSteps(t, f)
}

func TestHeartBeatsOnlyWhileLinksAreRight(t *testing.T) {
	f := newFakeHost()
	c := f.core(t)
	c.check(t.Context(), true)
	wantSteps(t, f)
	mustApply(t, c, wanted("a"))
	f.take()
	c.check(t.Context(), true)
	wantSteps(t, f, "passage", "beat")
	f.right = false
	f.fail["links 10.10.10.0/24"] = 1
	c.check(t.Context(), true)
	wantSteps(t, f, "interface none", "links 10.10.10.0/24")
	c.check(t.Context(), true)
	wantSteps(t, f, "interface none", "links 10.10.10.0/24", "attach a", "table", "passage", `prune to "a"`, "passage", "beat")
	if seen, err := c.Observe(t.Context()); err != nil || seen.Heals != 13 || seen.LastHeal.IsZero() {
		t.Errorf("heals %d at %v, %v", seen.Heals, seen.LastHeal, err)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	f := newFakeHost()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.core(t).Run(ctx); err != nil {
		t.Error(err)
	}
}

package services

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"honeysens.org/dockersensor/shared/helperapi"
)

// starts are the situations that services may begin in. Each has been running
// ssh as service 1 and the catch-all as service 10.
var starts = map[string]func(*world){
	"as it was":                  func(*world) {},
	"nothing there":              func(w *world) { w.lose(func(*Container) bool { return true }) },
	"all stopped by a reboot":    func(w *world) { w.reboot() },
	"honeypot killed":            func(w *world) { w.kill("s1") },
	"sandbox killed":             func(w *world) { w.kill("s1.net") },
	"both killed":                func(w *world) { w.kill("s10"); w.kill("s10.net") },
	"honeypot removed":           func(w *world) { w.lose(func(c *Container) bool { return c.Name == "s1" }) },
	"sandbox removed":            func(w *world) { w.lose(func(c *Container) bool { return c.Name == "s10.net" }) },
	"honeypots removed":          func(w *world) { w.lose(func(c *Container) bool { return c.Role == Honeypot }) },
	"sandboxes removed":          func(w *world) { w.lose(func(c *Container) bool { return c.Role == Sandbox }) },
	"honeypot renamed":           func(w *world) { w.renamed("s1", "mine") },
	"sandbox renamed":            func(w *world) { w.renamed("s10.net", "s2") },
	"named like another service": func(w *world) { w.renamed("s1", "s100"); w.renamed("s10", "s1") },
	"half removed":               func(w *world) { w.containers[w.names["s1"]].Dead = true },
	"sandbox half removed":       func(w *world) { w.containers[w.names["s1.net"]].Dead = true },
	"images removed":             func(w *world) { clear(w.images) },
	"images and containers gone": func(w *world) { clear(w.images); w.lose(func(*Container) bool { return true }) },
	"made by an older sensor": func(w *world) {
		for _, c := range w.containers {
			c.Config, c.Ref, c.Collector = "old", "", ""
		}
	},
	"limits of an older sensor": func(w *world) { w.containers[w.names["s1"]].Config = "old" },
	"left over of an unwanted service": func(w *world) {
		w.add(Container{Name: "s77", Role: Honeypot, Service: "77", Network: "host", Running: true})
		w.add(Container{Name: "s77.net", Role: Sandbox, Service: "77", Network: "none"})
	},
	"left over without service": func(w *world) { w.add(Container{Name: "x", Role: "other"}) },
	"two of the same": func(w *world) {
		w.add(Container{Name: "again", Role: Honeypot, Service: "1", Network: w.containers[w.names["s1"]].Network, Running: true})
	},
	"killed while one was to follow": func(w *world) {
		w.renamed("s1", "s1.old")
		w.renamed("s1.net", "s1.net.old")
		w.add(Container{Name: "s1.net", Role: Sandbox, Service: "1", Network: "none", Running: true, PID: 9000, Config: sandboxSpec("1", "pause").fingerprint()})
	},
	"helper is new":        func(w *world) { w.network, w.applied = nil, false },
	"helper has strangers": func(w *world) { w.network[0].Sandbox.ContainerID = strings.Repeat("f", 64) },
	"engine away":          func(w *world) { w.engineErr = errors.New("no such socket") },
	"helper away":          func(w *world) { w.applyErr = errors.New("no such socket") },
	"registry away":        func(w *world) { w.registry["recon:1"] = errors.New("no route") },
}

// wishes are what the server can want, from the same service list on.
var wishes = map[string]func() []Wanted{
	"the same":         func() []Wanted { return []Wanted{ssh("1"), catchAll("10")} },
	"nothing":          func() []Wanted { return nil },
	"one less":         func() []Wanted { return []Wanted{catchAll("10")} },
	"the other less":   func() []Wanted { return []Wanted{ssh("1")} },
	"one more":         func() []Wanted { return []Wanted{ssh("1"), catchAll("10"), revision("100", "dionaea:1", 8080).at(80)} },
	"another revision": func() []Wanted { return []Wanted{revision("1", "cowrie:2", 2223), catchAll("10")} },
	"another port":     func() []Wanted { return []Wanted{ssh("1").at(2022), catchAll("10")} },
	"catch-all moved": func() []Wanted {
		all, one := ssh("1"), catchAll("10").at(23)
		all.CatchAll, one.CatchAll = true, false
		return []Wanted{all, one}
	},
	"ports swapped":  func() []Wanted { return []Wanted{revision("10", "cowrie:1", 2222), catchAll("1")} },
	"raw":            func() []Wanted { return []Wanted{{ID: "1", Image: "cowrie:1", Raw: true}, catchAll("10")} },
	"empty service":  func() []Wanted { return []Wanted{{ID: "1", Error: "the server's entry is empty"}, catchAll("10")} },
	"other platform": func() []Wanted { return []Wanted{ssh("1"), {ID: "10", Error: "not for this platform"}} },
}

// at gives the service one port, that leads to 2222.
func (w Wanted) at(number uint16) Wanted {
	w.Ports = []helperapi.Assignment{tcp(number, 2222)}
	return w
}

func (w *world) kill(name string) {
	c := w.containers[w.names[name]]
	c.Running, c.PID, c.Finished, c.ExitCode = false, 0, time.Now(), 137
}

func (w *world) reboot() {
	for _, c := range w.containers {
		w.kill(c.Name)
	}
	w.network, w.applied = nil, false
}

func (w *world) lose(which func(*Container) bool) {
	for id, c := range w.containers {
		if which(c) {
			delete(w.containers, id)
			delete(w.names, c.Name)
		}
	}
}

func (w *world) renamed(from, to string) {
	id := w.names[from]
	delete(w.names, from)
	w.names[to], w.containers[id].Name = id, to
}

func (w *world) add(c Container) {
	w.number++
	c.ID = fmt.Sprintf("%064x", w.number)
	w.names[c.Name], w.containers[c.ID] = c.ID, &c
	if c.Role == Sandbox {
		// A sandbox as a killed sensor left it may be taken over.
		w.specs[c.ID] = sandboxSpec(c.Service, "pause")
	}
}

// TestConvergence wants every list of services to be reached from every start,
// in the same end, and nothing to happen after that.
func TestConvergence(t *testing.T) {
	for _, start := range slices.Sorted(maps.Keys(starts)) {
		for _, wish := range slices.Sorted(maps.Keys(wishes)) {
			t.Run(start+"/"+wish, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { converges(t, starts[start], wishes[wish]()) })
			})
		}
	}
}

func converges(t *testing.T, disturb func(*world), wish []Wanted) {
	w := newWorld()
	s, end := begin(t, w, Config{})
	s.SetWanted(wishes["the same"]())
	after(2 * time.Minute)
	end()
	w.change(func() { disturb(w) })
	s, _ = begin(t, w, Config{})
	s.SetWanted(wish)
	after(10 * time.Second)
	w.change(func() { w.engineErr, w.applyErr, w.registry = nil, nil, map[string]error{} })
	after(2 * time.Minute)
	s.SetWanted(wish)
	after(2 * time.Minute)
	w.take()
	after(10 * time.Minute)
	if deeds := w.take(); slices.ContainsFunc(deeds, func(d string) bool { return !strings.HasPrefix(d, "apply") }) {
		t.Errorf("it does not come to rest: %v", deeds)
	}
	if diff := cmp.Diff(outcome(wish), w.outcome()); diff != "" {
		t.Errorf("outcome (-want +got):\n%s", diff)
	}
	for _, want := range wish {
		status := Running
		if want.Error != "" {
			status = Failed
		}
		wantState(t, s, want.ID, status, want.Error)
	}
}

// outcome is what there has to be in the end: containers with what they run, and
// what leads to them.
func outcome(wish []Wanted) map[string]string {
	end := map[string]string{}
	for _, want := range wish {
		switch {
		case want.Error != "":
		case want.Raw:
			end["s"+want.ID] = "image of " + want.Image + " in host"
		default:
			end["s"+want.ID] = "image of " + want.Image + " in s" + want.ID + ".net"
			end["s"+want.ID+".net"] = fmt.Sprintf("pause with %v %v", want.Ports, want.CatchAll)
		}
	}
	return end
}

func (w *world) outcome() map[string]string {
	w.mu.Lock()
	defer w.mu.Unlock()
	end := map[string]string{}
	for id, c := range w.containers {
		text := w.specs[id].Image
		if sandbox, ok := strings.CutPrefix(c.Network, "container:"); ok && w.containers[sandbox] != nil {
			text += " in " + w.containers[sandbox].Name
		} else if c.Role == Honeypot {
			text += " in " + c.Network
		}
		for _, s := range w.network {
			if s.Sandbox.ContainerID == id {
				text += fmt.Sprintf(" with %v %v", s.Ports, s.CatchAll)
			}
		}
		if !c.Running {
			text += ", ended"
		}
		end[c.Name] = text
	}
	for _, s := range w.network {
		if w.containers[s.Sandbox.ContainerID] == nil {
			end["network "+s.ID] = "of no container"
		}
	}
	return end
}

// TestChangedServiceNetwork moves every service to the new gateway.
func TestChangedServiceNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		s, _ := begin(t, w, Config{})
		s.SetWanted(wishes["the same"]())
		after(time.Second)
		w.change(func() { w.gateway = netip.MustParseAddr("10.20.0.1") })
		s.Reconnect()
		after(time.Minute)
		if diff := cmp.Diff(outcome(wishes["the same"]()), w.outcome()); diff != "" {
			t.Error(diff)
		}
		for _, c := range w.containers {
			if c.Role == Honeypot && c.Collector != "10.20.0.1" {
				t.Errorf("%s reports to %s", c.Name, c.Collector)
			}
		}
	})
}

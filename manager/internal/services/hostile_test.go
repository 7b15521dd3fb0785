package services

import (
	"strings"
	"testing"
)

// TestEngineHostileServices runs honeypots that take what they can get: each one
// is named with what it took, and the good one among them goes on.
func TestEngineHostileServices(t *testing.T) {
	b := newBench(t)
	hostile := []struct{ id, kind, reason string }{
		{"2", "disk", "SERVICE_DISK"}, {"3", "fork", "all of its 50 processes"},
		{"7", "write", "MB a second"}, {"4", "log", "lines a second"}, {"5", "memory", "memory"},
	}
	wanted := []Wanted{honeypot("1")}
	for _, h := range hostile {
		b.push("honeypot:"+h.kind, h.kind)
		wanted = append(wanted, Wanted{ID: h.id, Label: h.kind, Image: "honeypot:" + h.kind})
	}
	// Its image also says that it is something else than a honeypot.
	b.push("honeypot:read-only", "read-only")
	wanted = append(wanted, Wanted{ID: "6", Label: "read-only", Image: "honeypot:read-only"})
	b.begin()
	defer b.end()
	b.services.SetWanted(wanted)
	_, good := b.running("1")
	if _, reader := b.running("6"); !reader.HostConfig.ReadonlyRootfs || good.HostConfig.ReadonlyRootfs {
		t.Errorf("file systems are read-only: %v, that of the others: %v", reader.HostConfig.ReadonlyRootfs, good.HostConfig.ReadonlyRootfs)
	}
	for _, h := range hostile {
		b.eventually("service "+h.id+" is an error", func() bool {
			state := b.state(h.id)
			return state.Status == Failed && strings.Contains(state.Reason, h.reason)
		})
		t.Logf("%s: %s", h.kind, b.state(h.id).Reason)
	}
	if _, still := b.running("1"); still.ID != good.ID || still.State.Pid != good.State.Pid {
		t.Error("the good honeypot was started again")
	}
	b.services.SetWanted(nil)
	b.eventually("all are gone", func() bool { return len(b.services.States()) == 0 })
}

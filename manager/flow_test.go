package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"honeysens.org/dockersensor/packaging/lab/admin"
)

// TestServerDown keeps 5,000 events while the server is away.
func TestServerDown(t *testing.T) {
	r := newRig(t)
	r.start()
	r.fault(admin.Fault{Path: admin.PathAny, Kind: admin.FaultUnavailable})
	events := names("event", 5000)
	r.reportAll(events)
	if waiting := r.status().Events.Waiting; waiting != len(events) {
		t.Errorf("%d events wait", waiting)
	}
	r.clearFaults()
	duplicates := r.wantStored(events)
	t.Logf("%d of %d events arrived, %d duplicates", len(events), len(events), duplicates)
	if duplicates > 0 {
		t.Errorf("%d duplicates", duplicates)
	}
}

// TestServerFailsAtEverything answers 500 to all: events are taken on, nothing
// is given up, and all of it arrives afterwards.
func TestServerFailsAtEverything(t *testing.T) {
	r := newRig(t)
	r.start()
	r.fault(admin.Fault{Path: admin.PathAny, Kind: admin.FaultError})
	events := names("event", 300)
	r.reportAll(events[:200])
	r.until("the failure is shown", func() error {
		if text := r.status().Events.Error; !strings.Contains(text, "500") {
			return fmt.Errorf("events: %q", text)
		}
		return nil
	})
	r.reportAll(events[200:])
	if s := r.status().Events; s.Waiting != len(events) || s.Quarantined != 0 || s.Lost != 0 {
		t.Errorf("events %+v", s)
	}
	r.clearFaults()
	r.wantStored(events)
}

// TestPoison has the server refuse one of a thousand events, until it is told
// by hand to look again.
func TestPoison(t *testing.T) {
	const poison = "event 00500"
	r := newRig(t)
	r.start()
	r.fault(admin.Fault{Path: admin.PathEvents, Kind: admin.FaultPoison, Text: poison})
	// The first request takes long, so that the others wait and go together.
	r.fault(admin.Fault{Path: admin.PathEvents, Kind: admin.FaultDelay, DelayMS: 1500, Count: 1})
	events := names("event", 1000)
	r.reportAll(events)
	r.wantStored(slices.Delete(slices.Clone(events), 500, 501))
	r.until("the event is in quarantine", func() error {
		if s := r.status().Events; s.Quarantined != 1 || s.Waiting != 0 {
			return fmt.Errorf("events %+v", s)
		}
		return nil
	})
	text, err := r.cli("events")
	if err != nil || !strings.Contains(text, poison) {
		t.Fatalf("events: %v\n%s", err, text)
	}
	t.Logf("%d of %d events arrived, 1 in quarantine:\n%s", len(r.stored()), len(events), text)
	r.clearFaults()
	if text, err = r.cli("events", "retry", "--all"); err != nil {
		t.Fatalf("events retry: %v\n%s", err, text)
	}
	r.wantStored(events)
}

// disk mounts a small file system as the manager's state directory.
func (r *rig) disk(size string) string {
	r.t.Helper()
	if os.Getuid() != 0 {
		r.t.Fatal("this test mounts a file system: run it as root")
	}
	dir := filepath.Join(r.dir, "state")
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// TestNetnsDiskFull fills the disk of a manager from outside: it says no, says
// why, and recovers by itself.
func TestNetnsDiskFull(t *testing.T) {
	r := newRig(t)
	dir := r.disk("2m")
	r.start()
	r.fault(admin.Fault{Path: admin.PathEvents, Kind: admin.FaultUnavailable})
	before, after := names("before", 50), names("after", 50)
	r.reportAll(before)
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 4<<20), 0o600); err == nil {
		t.Fatal("the disk is not full")
	}
	accepted, refused := r.fill()
	if !strings.Contains(refused.Error(), "cannot keep events at the moment") {
		t.Errorf("honeypots hear: %v", refused)
	}
	said := r.status().Events.Error
	if !strings.Contains(said, "no space left on device") {
		t.Errorf("the status says %q", said)
	}
	t.Logf("honeypots hear: %v; the status says: %s", refused, said)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	r.reportAll(after)
	r.clearFaults()
	r.wantStored(slices.Concat(before, accepted, after))
}

// fill reports events until one is refused, and returns those that were not.
func (r *rig) fill() (accepted []string, refused error) {
	r.t.Helper()
	for i := range 10_000 {
		summary := fmt.Sprintf("fill %d %s", i, strings.Repeat("x", 200))
		if err := r.report(r.t.Context(), summary); err != nil {
			return accepted, err
		}
		accepted = append(accepted, summary)
	}
	r.t.Fatal("the disk does not get full")
	return nil, nil
}

// TestNetnsDiskReadOnly starts the manager on a disk that cannot be written: it
// ends and says why, for its supervisor to try again.
func TestNetnsDiskReadOnly(t *testing.T) {
	r := newRig(t)
	dir := r.disk("8m")
	r.start()
	r.reportAll([]string{"before"})
	r.wantStored([]string{"before"})
	r.manager.end(unix.SIGTERM)
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, "size=8m"); err != nil {
		t.Fatal(err)
	}
	r.run()
	<-r.manager.done
	said := r.manager.log.String()
	if r.manager.err == nil || !strings.Contains(said, "read-only file system") || !strings.Contains(said, dir) {
		t.Fatalf("ended with %v and says:\n%s", r.manager.err, said)
	}
	t.Logf("%s", said)
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT, "size=8m"); err != nil {
		t.Fatal(err)
	}
	r.start()
	r.reportAll([]string{"after"})
	r.wantStored([]string{"before", "after"})
}

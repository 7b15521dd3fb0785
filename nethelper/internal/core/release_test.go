package core

import "testing"

func TestReleaseLeavesTheInterfaceAndCanBeTakenBack(t *testing.T) {
	f := newFakeHost()
	c := f.core(t)
	if _, err := c.Release(t.Context()); err != nil {
		t.Fatalf("release of what a killed helper left: %v", err)
	}
	mustApply(t, c, wanted("a"))
	f.take()
	if _, err := c.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantSteps(t, f, "remove passage", "remove table", `prune to ""`, "remove links")
	if c.inForce() != nil {
		t.Error("a released network is still kept")
	}
	mustApply(t, c, wanted("a"))
}

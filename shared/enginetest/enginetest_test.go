package enginetest

import "testing"

func TestEngineStopsAndComesBack(t *testing.T) {
	e := Start(t)
	before, err := e.Client.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	e.Stop()
	if _, err := e.Client.Ping(t.Context()); err == nil {
		t.Error("it answers after its end")
	}
	e.Run()
	after, err := e.Client.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if before.ID != after.ID {
		t.Errorf("it came back as another engine: %s, was %s", after.ID, before.ID)
	}
}

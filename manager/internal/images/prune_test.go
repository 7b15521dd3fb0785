package images

import (
	"os"
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
)

func TestPruneSparesOthersAndTheUsed(t *testing.T) {
	reg, engine := newRegistry(t), newFakeEngine()
	images := testImages(t, reg, engine)
	ids := map[string]string{}
	for _, uri := range []string{"keep:1", "drop:1", "used:1"} {
		reg.push(t, uri, testImage(t, empty.Image, randomLayer(t)))
		id, _, err := images.Ensure(t.Context(), uri, nil)
		if err != nil {
			t.Fatal(err)
		}
		ids[uri] = id
	}
	other := testImage(t, empty.Image, randomLayer(t))
	if err := images.load(t.Context(), other, []string{"registry.example/other:1"}, func([]v1.Descriptor) error { return nil }); err != nil {
		t.Fatal(err)
	}
	engine.inUse[ids["used:1"]] = true
	if err := images.Prune(t.Context(), []string{"keep:1"}); err != nil {
		t.Fatal(err)
	}
	if engine.images[ids["drop:1"]] != nil {
		t.Error("an image is still there that nobody wants")
	}
	for _, name := range []string{ids["keep:1"], ids["used:1"], "services.invalid/keep:1", "registry.example/other:1"} {
		if engine.images[name] == nil {
			t.Errorf("%s has gone; there are %v", name, engine.names())
		}
	}
	engine.inUse = nil
	if err := images.Prune(t.Context(), []string{"keep:1"}); err != nil {
		t.Fatal(err)
	}
	if engine.images[ids["used:1"]] != nil {
		t.Error("an image is still there that nobody uses any more")
	}
}

func TestPauseReplacesItsOldProgram(t *testing.T) {
	engine := newFakeEngine()
	path := filepath.Join(t.TempDir(), "pause")
	images := newImages(t, Config{Pause: path}, engine)
	make := func(content string) string {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		id, err := images.Pause(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	first := make("\x7fELF one")
	if again := make("\x7fELF one"); again != first || len(engine.loads) != 1 {
		t.Errorf("the same program was loaded %d times", len(engine.loads))
	}
	if second := make("\x7fELF two"); second == first || engine.images[first] != nil {
		t.Errorf("the old program is still there: %v", engine.names())
	}
	if err := os.WriteFile(path, []byte("#!/bin/sh"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := images.Pause(t.Context()); err == nil {
		t.Error("a script was taken for the pause program")
	}
}

package images

import (
	"context"
	"io"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"
	"github.com/google/go-containerregistry/pkg/v1/empty"

	"honeysens.org/dockersensor/shared/enginetest"
	"honeysens.org/dockersensor/shared/nettest"
)

// countingEngine counts loads.
type countingEngine struct {
	*client.Client
	loads atomic.Int64
}

func (c *countingEngine) ImageLoad(ctx context.Context, in io.Reader, options ...client.ImageLoadOption) (image.LoadResponse, error) {
	c.loads.Add(1)
	return c.Client.ImageLoad(ctx, in, options...)
}

func TestEngineImages(t *testing.T) {
	nettest.Need(t, "cc")
	engine := &countingEngine{Client: enginetest.Start(t).Client}
	t.Run("layers that are there are left out", func(t *testing.T) { leavesOutLayers(t, engine) })
	t.Run("unneeded images go, used ones stay", func(t *testing.T) { prunes(t, engine) })
	t.Run("pause program runs and ends at SIGTERM", func(t *testing.T) { runsPause(t, engine) })
}

func leavesOutLayers(t *testing.T, engine *countingEngine) {
	reg := newRegistry(t)
	base := testImage(t, empty.Image, randomLayer(t), randomLayer(t))
	second := testImage(t, base, randomLayer(t))
	reg.push(t, "a:1", base)
	reg.push(t, "a:2", second)
	images := testImages(t, reg, engine)
	for n, uri := range []string{"a:1", "a:2", "a:2"} {
		id, digest, err := images.Ensure(t.Context(), uri, nil)
		if err != nil {
			t.Fatal(err)
		}
		presentID, presentDigest, err := images.Present(t.Context(), uri)
		if err != nil || presentID != id || presentDigest != digest || digest == "" {
			t.Errorf("%d: got %s %s, then %s %s, %v", n, id, digest, presentID, presentDigest, err)
		}
	}
	found, err := engine.ImageInspect(t.Context(), "services.invalid/a:2")
	if err != nil || len(found.RootFS.Layers) != 3 {
		t.Errorf("got %v, %v, want an image of 3 layers", found.RootFS.Layers, err)
	}
	if n := engine.loads.Load(); n != 4 {
		t.Errorf("%d loads, want 2 and a note of each: none is repeated with all layers, none for what is there", n)
	}
}

func prunes(t *testing.T, engine *countingEngine) {
	reg := newRegistry(t)
	images := testImages(t, reg, engine)
	for _, uri := range []string{"used:1", "gone:1"} {
		reg.push(t, uri, testImage(t, empty.Image, randomLayer(t)))
		if _, _, err := images.Ensure(t.Context(), uri, nil); err != nil {
			t.Fatal(err)
		}
	}
	created, err := engine.ContainerCreate(t.Context(), &container.Config{Image: "services.invalid/used:1", Cmd: []string{"/x"}}, nil, nil, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	prune := func(want string) {
		t.Helper()
		if err := images.Prune(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		list, err := engine.ImageList(t.Context(), image.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, found := range list {
			got += found.ID
		}
		if got != want {
			t.Errorf("the engine has %q, want %q", got, want)
		}
	}
	used, err := engine.ImageInspect(t.Context(), "services.invalid/used:1")
	if err != nil {
		t.Fatal(err)
	}
	prune(used.ID)
	if err := engine.ContainerRemove(t.Context(), created.ID, container.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	prune("")
}

func runsPause(t *testing.T, engine *countingEngine) {
	pause := filepath.Join(t.TempDir(), "pause")
	build := exec.CommandContext(t.Context(), "../../../packaging/image/pause/build.sh", pause)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	images := newImages(t, Config{Pause: pause}, engine)
	id, err := images.Pause(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	created, err := engine.ContainerCreate(t.Context(), &container.Config{Image: id},
		&container.HostConfig{NetworkMode: "none", CapDrop: []string{"ALL"}, ReadonlyRootfs: true}, nil, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := engine.ContainerStart(t.Context(), created.ID, container.StartOptions{}); err != nil {
		t.Fatal(err)
	}
	start, patience := time.Now(), 20
	if err := engine.ContainerStop(t.Context(), created.ID, container.StopOptions{Timeout: &patience}); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("it took %v to end", took)
	}
	state, err := engine.ContainerInspect(t.Context(), created.ID)
	if err != nil || state.State.ExitCode != 0 {
		t.Errorf("it ended with %d, %v", state.State.ExitCode, err)
	}
}

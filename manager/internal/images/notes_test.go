package images

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"honeysens.org/dockersensor/shared/enginetest"
)

// TestEnginePowerCutInALoad: the engine comes back with layers that it takes for
// whole, and whose files are empty.
func TestEnginePowerCutInALoad(t *testing.T) {
	e := enginetest.Start(t)
	reg := newRegistry(t)
	base := testImage(t, empty.Image, fileLayer(t, "shared"))
	cut := testImage(t, base, fileLayer(t, "bottom"), fileLayer(t, "top"))
	reg.push(t, "base:1", base)
	for n, left := range []string{"the image", "all layers, no image", "the bottom layer"} {
		t.Run(left, func(t *testing.T) {
			uri := fmt.Sprintf("cut:%d", n)
			reg.push(t, uri, cut)
			cache := t.TempDir()
			first := newImages(t, Config{Transport: reg.Client().Transport, Registry: reg.host, Cache: cache}, e.Client)
			if _, _, err := first.Ensure(t.Context(), "base:1", nil); err != nil {
				t.Fatal(err)
			}
			id, digest, err := first.Ensure(t.Context(), uri, nil)
			if err != nil {
				t.Fatal(err)
			}
			first.boot = "an earlier boot"
			hash, err := v1.NewHash(digest)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := first.begin(t.Context(), tagsOf(ref{uri: uri}, hash), diffIDs(t, cut)); err != nil {
				t.Fatal(err)
			}
			e.Stop()
			emptyFiles(t, e.Data, "bottom", "top")
			switch n {
			case 1:
				forgetImage(t, e.Data, id)
			case 2:
				forgetImage(t, e.Data, id)
				forgetTopLayer(t, e.Data)
			}
			e.Run()

			second := newImages(t, Config{Transport: reg.Client().Transport, Registry: reg.host, Cache: cache}, e.Client)
			if _, _, err := second.Ensure(t.Context(), uri, nil); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"shared", "bottom", "top"} {
				if got := fileOf(t, e, "services.invalid/"+uri, name); got != name {
					t.Errorf("file %s has %q", name, got)
				}
			}
			wantNames(t, e, "services.invalid/base:1", "services.invalid/"+uri)
			if err := second.Prune(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
			wantNames(t, e)
			wantNoLayers(t, e.Data)
		})
	}
}

// TestLoadThatTheEngineRefusesLeavesNoNote: the engine has given up the layers
// itself.
func TestLoadThatTheEngineRefusesLeavesNoNote(t *testing.T) {
	reg, engine := newRegistry(t), newFakeEngine()
	reg.push(t, "a:1", testImage(t, empty.Image, randomLayer(t)))
	engine.answer = `{"error":"no"}`
	if _, _, err := testImages(t, reg, engine).Ensure(t.Context(), "a:1", nil); err == nil {
		t.Fatal("no error")
	}
	if names := engine.names(); len(names) > 0 {
		t.Errorf("the engine has %v", names)
	}
}

// TestNotesOfThisBoot: when the manager alone has ended, files are whole, and the
// disk has them sooner or later. The image stays.
func TestNotesOfThisBoot(t *testing.T) {
	reg, engine := newRegistry(t), newFakeEngine()
	img := testImage(t, empty.Image, randomLayer(t))
	reg.push(t, "a:1", img)
	first := testImages(t, reg, engine)
	if _, _, err := first.Ensure(t.Context(), "a:1", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := first.begin(t.Context(), []string{"services.invalid/a:1"}, diffIDs(t, img)); err != nil {
		t.Fatal(err)
	}
	flushed := 0
	second := newImages(t, Config{Transport: reg.Client().Transport, Registry: reg.host, Flush: func() error {
		flushed++
		return nil
	}}, engine)
	for range 2 {
		if _, _, err := second.Present(t.Context(), "a:1"); err != nil {
			t.Fatal(err)
		}
	}
	if flushed != 1 || len(engine.loads) != 1 {
		t.Errorf("flushed %d times, loaded %d times, want 1 and 1", flushed, len(engine.loads))
	}
	if names := engine.names(); slices.ContainsFunc(names, func(name string) bool { return strings.HasPrefix(name, loads) }) {
		t.Errorf("a note is left: %v", names)
	}
}

// fileLayer has one file, whose content is its name.
func fileLayer(t *testing.T, name string) v1.Layer {
	t.Helper()
	var content bytes.Buffer
	out := tar.NewWriter(&content)
	if err := out.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(name))}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(out, name); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	return static.NewLayer(content.Bytes(), types.DockerUncompressedLayer)
}

func diffIDs(t *testing.T, img v1.Image) []v1.Hash {
	t.Helper()
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	return config.RootFS.DiffIDs
}

// emptyFiles does to the layers' files what a power cut does to those that the
// disk does not have yet.
func emptyFiles(t *testing.T, data string, names ...string) {
	t.Helper()
	found := 0
	err := filepath.WalkDir(filepath.Join(data, "overlay2"), func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() && slices.Contains(names, entry.Name()) {
			found++
			err = os.Truncate(path, 0)
		}
		return err
	})
	if err != nil || found != len(names) {
		t.Fatalf("emptied %d files, %v", found, err)
	}
}

// forgetImage takes the engine to the moment before it knew an image; it is
// stopped.
func forgetImage(t *testing.T, data, id string) {
	t.Helper()
	dir := filepath.Join(data, "image/overlay2")
	if err := os.Remove(filepath.Join(dir, "imagedb/content/sha256", strings.TrimPrefix(id, "sha256:"))); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "repositories.json"))
	if err != nil {
		t.Fatal(err)
	}
	var names struct{ Repositories map[string]map[string]string }
	if err := json.Unmarshal(text, &names); err != nil {
		t.Fatal(err)
	}
	for _, tags := range names.Repositories {
		for tag, of := range tags {
			if of == id {
				delete(tags, tag)
			}
		}
	}
	if text, err = json.Marshal(names); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "repositories.json"), text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// forgetTopLayer removes the layer that none is above of, of those that are three
// high.
func forgetTopLayer(t *testing.T, data string) {
	t.Helper()
	dir := filepath.Join(data, "image/overlay2/layerdb/sha256")
	parents := map[string]string{}
	for _, layer := range layersOf(t, data) {
		parent, err := os.ReadFile(filepath.Join(dir, layer, "parent"))
		if err == nil {
			parents[layer] = strings.TrimPrefix(string(parent), "sha256:")
		}
	}
	for layer, parent := range parents {
		if parents[parent] != "" {
			if err := os.RemoveAll(filepath.Join(dir, layer)); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatalf("no such layer: %v", parents)
}

func layersOf(t *testing.T, data string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(data, "image/overlay2/layerdb/sha256"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

func wantNoLayers(t *testing.T, data string) {
	t.Helper()
	if layers := layersOf(t, data); len(layers) > 0 {
		t.Errorf("layers are left: %v", layers)
	}
}

// fileOf reads a file of an image as a container has it.
func fileOf(t *testing.T, e *enginetest.Engine, tag, name string) string {
	t.Helper()
	created, err := e.Client.ContainerCreate(t.Context(), &container.Config{Image: tag, Cmd: []string{"/x"}}, nil, nil, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := e.Client.ContainerRemove(t.Context(), created.ID, container.RemoveOptions{}); err != nil {
			t.Error(err)
		}
	}()
	content, _, err := e.Client.CopyFromContainer(t.Context(), created.ID, "/"+name)
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	in := tar.NewReader(content)
	if _, err := in.Next(); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(in)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// wantNames compares the names of the engine's images, digests aside.
func wantNames(t *testing.T, e *enginetest.Engine, want ...string) {
	t.Helper()
	list, err := e.Client.ImageList(t.Context(), image.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, found := range list {
		got = append(got, slices.DeleteFunc(found.RepoTags, func(tag string) bool { return strings.HasPrefix(tag, manifests) })...)
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("the engine has images %v, want %v", got, want)
	}
}

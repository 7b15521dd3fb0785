package images

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/system"
	"github.com/docker/docker/client"
)

// fakeEngine keeps images as an engine does: by the names that a load gave
// them.
type fakeEngine struct {
	mu     sync.Mutex
	images map[string]*image.InspectResponse
	inUse  map[string]bool
	// loads are those of images; what only notes a load is not among them.
	loads []load
	// dir is where it claims to keep its data.
	dir string
	// answer, when set, is what a load says instead of loading.
	answer string
}

// load is what an archive held.
type load struct {
	layers []string
	files  map[string]int
}

func newFakeEngine() *fakeEngine {
	return &fakeEngine{images: map[string]*image.InspectResponse{}, inUse: map[string]bool{}}
}

func (f *fakeEngine) ImageLoad(_ context.Context, in io.Reader, _ ...client.ImageLoadOption) (image.LoadResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var manifest []manifestEntry
	var config struct {
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
	}
	got := load{files: map[string]int{}}
	id := ""
	for reader := tar.NewReader(in); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return image.LoadResponse{}, fmt.Errorf("bad archive: %w", err)
		}
		content, err := io.ReadAll(reader)
		if err != nil {
			return image.LoadResponse{}, fmt.Errorf("bad archive: %w", err)
		}
		got.files[header.Name] = len(content)
		switch header.Name {
		case "manifest.json":
			err = json.Unmarshal(content, &manifest)
		case "config.json":
			id = fmt.Sprintf("sha256:%x", sha256.Sum256(content))
			err = json.Unmarshal(content, &config)
		}
		if err != nil {
			return image.LoadResponse{}, err
		}
	}
	got.layers = manifest[0].Layers
	if len(got.layers) > 0 {
		f.loads = append(f.loads, got)
	}
	if f.answer != "" && len(got.layers) > 0 {
		return image.LoadResponse{Body: io.NopCloser(strings.NewReader(f.answer))}, nil
	}
	img := &image.InspectResponse{ID: id, RepoTags: manifest[0].RepoTags, RootFS: image.RootFS{Layers: config.RootFS.DiffIDs}}
	for _, tag := range img.RepoTags {
		f.name(tag, img)
	}
	f.images[id] = img
	return image.LoadResponse{Body: io.NopCloser(strings.NewReader(`{"stream":"Loaded image"}`))}, nil
}

// name moves a name from the image that had it.
func (f *fakeEngine) name(tag string, img *image.InspectResponse) {
	if old := f.images[tag]; old != nil && old != img {
		old.RepoTags = slices.DeleteFunc(old.RepoTags, func(t string) bool { return t == tag })
	}
	if !slices.Contains(img.RepoTags, tag) {
		img.RepoTags = append(img.RepoTags, tag)
	}
	f.images[tag] = img
}

func (f *fakeEngine) ImageInspect(_ context.Context, id string, _ ...client.ImageInspectOption) (image.InspectResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	img := f.images[id]
	if img == nil {
		return image.InspectResponse{}, cerrdefs.ErrNotFound
	}
	copied := *img
	copied.RepoTags = slices.Clone(img.RepoTags)
	return copied, nil
}

func (f *fakeEngine) Info(context.Context) (system.Info, error) {
	return system.Info{DockerRootDir: f.dir}, nil
}

func (f *fakeEngine) ImageList(context.Context, image.ListOptions) ([]image.Summary, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []image.Summary
	for key, img := range f.images {
		if key == img.ID {
			list = append(list, image.Summary{ID: img.ID, RepoTags: slices.Clone(img.RepoTags)})
		}
	}
	return list, nil
}

func (f *fakeEngine) ImageTag(_ context.Context, source, target string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.name(target, f.images[source])
	return nil
}

func (f *fakeEngine) ImageRemove(_ context.Context, tag string, _ image.RemoveOptions) ([]image.DeleteResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	img := f.images[tag]
	switch {
	case img == nil:
		return nil, cerrdefs.ErrNotFound
	case len(img.RepoTags) == 1 && f.inUse[img.ID]:
		return nil, cerrdefs.ErrConflict
	}
	delete(f.images, tag)
	img.RepoTags = slices.DeleteFunc(img.RepoTags, func(t string) bool { return t == tag })
	if len(img.RepoTags) == 0 {
		delete(f.images, img.ID)
	}
	return nil, nil
}

// names returns the names of all images, sorted.
func (f *fakeEngine) names() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var names []string
	for key, img := range f.images {
		if key != img.ID {
			names = append(names, key)
		}
	}
	slices.Sort(names)
	return names
}

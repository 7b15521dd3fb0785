package images

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/image"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// maxPause is the largest pause program, in bytes. It has a few thousand.
const maxPause = 1 << 20

const pauseName = programs + "pause:"

// Pause returns the engine's id of the image with the pause program, which it
// makes from the program's file when the engine has none or an older one.
func (i *Images) Pause(ctx context.Context) (string, error) {
	img, err := pauseImage(i.cfg.Pause)
	if err != nil {
		return "", fmt.Errorf("image of the pause program: %w", err)
	}
	digest, err := img.ConfigName()
	if err != nil {
		return "", fmt.Errorf("image of the pause program: %w", err)
	}
	tag := pauseName + digest.Hex
	if err := i.settle(ctx); err != nil {
		return "", fmt.Errorf("image of the pause program: %w", err)
	}
	i.loading.RLock()
	defer i.loading.RUnlock()
	found, err := i.engine.ImageInspect(ctx, tag)
	if cerrdefs.IsNotFound(err) {
		if err := i.load(ctx, img, []string{tag}, func([]v1.Descriptor) error { return nil }); err != nil {
			return "", fmt.Errorf("image of the pause program: %w", err)
		}
		i.prunePause(ctx, tag)
		found, err = i.engine.ImageInspect(ctx, tag)
	}
	if err != nil {
		return "", fmt.Errorf("image of the pause program: %w", err)
	}
	return found.ID, nil
}

// prunePause removes what earlier versions left. One that is in use stays until
// the program changes the next time; it has a few kilobytes.
func (i *Images) prunePause(ctx context.Context, keep string) {
	list, err := i.engine.ImageList(ctx, image.ListOptions{})
	if err != nil {
		return
	}
	for _, found := range list {
		for _, tag := range found.RepoTags {
			if strings.HasPrefix(tag, pauseName) && tag != keep {
				_, _ = i.engine.ImageRemove(ctx, tag, image.RemoveOptions{PruneChildren: true})
			}
		}
	}
}

// pauseImage makes an image that holds the program and nothing else. The same
// program makes the same image.
func pauseImage(path string) (v1.Image, error) {
	program, err := readProgram(path)
	if err != nil {
		return nil, err
	}
	var layer bytes.Buffer
	out := tar.NewWriter(&layer)
	header := &tar.Header{Typeflag: tar.TypeReg, Name: "pause", Mode: 0o555, Size: int64(len(program)), Format: tar.FormatUSTAR}
	if err := out.WriteHeader(header); err != nil {
		return nil, err
	}
	if _, err := out.Write(program); err != nil {
		return nil, err
	}
	if err := out.Close(); err != nil {
		return nil, err
	}
	img, err := mutate.AppendLayers(empty.Image, static.NewLayer(layer.Bytes(), types.DockerUncompressedLayer))
	if err != nil {
		return nil, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Config.Entrypoint = []string{"/pause"}
	config.Config.User = "65534:65534"
	return mutate.ConfigFile(img, config)
}

func readProgram(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	program, err := io.ReadAll(io.LimitReader(file, maxPause+1))
	if err != nil {
		return nil, err
	}
	if len(program) > maxPause || !bytes.HasPrefix(program, []byte("\x7fELF")) {
		return nil, fmt.Errorf("%s is not a program of at most %d bytes", path, maxPause)
	}
	return program, nil
}

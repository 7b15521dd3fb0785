package images

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/docker/docker/api/types/image"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.uber.org/zap"

	"honeysens.org/dockersensor/shared/dockerload"
)

// load hands the image over to the engine. Layers at the bottom that another
// image of the engine has are left out; when the engine does not accept that,
// it gets them all. Before layers are read, bring is asked to see to them.
func (i *Images) load(ctx context.Context, img v1.Image, tags []string, bring func([]v1.Descriptor) error) error {
	manifest, err := img.Manifest()
	if err != nil {
		return fmt.Errorf("read the manifest: %w", err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		return fmt.Errorf("read the configuration: %w", err)
	}
	skip, err := i.presentLayers(ctx, config.RootFS.DiffIDs)
	if err != nil {
		return err
	}
	if err := bring(manifest.Layers[skip:]); err != nil {
		return err
	}
	note, err := i.begin(ctx, tags, config.RootFS.DiffIDs)
	if err != nil {
		return err
	}
	err = i.loadFrom(ctx, img, skip, tags)
	if err != nil && skip > 0 && ctx.Err() == nil {
		i.log.Debug("engine did not accept the image without its present layers", zap.Int("left_out", skip), zap.Error(err))
		if err = bring(manifest.Layers); err == nil {
			err = i.loadFrom(ctx, img, 0, tags)
		}
	}
	if err == nil {
		err = i.verify(ctx, tags[0], config.RootFS.DiffIDs)
	}
	if ctx.Err() != nil {
		// Who knows how far the engine is: the next manager will see.
		return errors.Join(err, ctx.Err())
	}
	return errors.Join(err, i.end(ctx, note))
}

// presentLayers returns how many layers, from the bottom, some image of the
// engine has in the same order. The engine knows a layer by all that is below
// it.
func (i *Images) presentLayers(ctx context.Context, want []v1.Hash) (int, error) {
	list, err := i.engine.ImageList(ctx, image.ListOptions{})
	if err != nil {
		return 0, fmt.Errorf("list images: %w", err)
	}
	best := 0
	for _, found := range list {
		details, err := i.engine.ImageInspect(ctx, found.ID)
		if err != nil {
			// It may have gone since; without it more is fetched, no harm.
			continue
		}
		best = max(best, commonPrefix(want, details.RootFS.Layers))
	}
	return best, nil
}

func commonPrefix(want []v1.Hash, have []string) int {
	n := 0
	for n < len(want) && n < len(have) && want[n].String() == have[n] {
		n++
	}
	return n
}

// loadFrom streams the archive of the image, without its first skip layers,
// into the engine.
func (i *Images) loadFrom(ctx context.Context, img v1.Image, skip int, tags []string) error {
	unpacked, err := i.engineRoom(ctx, img, skip)
	if err != nil {
		return err
	}
	return i.send(ctx, func(a archive) error {
		a.unpacked = unpacked
		return a.write(img, skip, tags)
	})
}

// send streams what write makes of an archive into the engine.
func (i *Images) send(ctx context.Context, write func(a archive) error) error {
	reader, writer := io.Pipe()
	written := make(chan error, 1)
	go func() {
		err := write(archive{out: tar.NewWriter(writer)})
		_ = writer.CloseWithError(err)
		written <- err
	}()
	err := dockerload.Load(ctx, i.engine, reader)
	// Should the engine have stopped reading, the writer must not wait for it.
	_ = reader.CloseWithError(errReaderGone)
	if writeErr := <-written; writeErr != nil && !errors.Is(writeErr, errReaderGone) {
		return writeErr
	}
	if err != nil {
		return fmt.Errorf("load into the engine: %w", err)
	}
	return nil
}

var errReaderGone = errors.New("the engine stopped reading")

// verify compares what the engine has with what the image's configuration says.
func (i *Images) verify(ctx context.Context, tag string, want []v1.Hash) error {
	found, err := i.engine.ImageInspect(ctx, tag)
	if err != nil {
		return fmt.Errorf("look at the loaded image: %w", err)
	}
	layers := make([]string, len(want))
	for n, hash := range want {
		layers[n] = hash.String()
	}
	if !slices.Equal(layers, found.RootFS.Layers) {
		return fmt.Errorf("the engine made other layers of it: %v", found.RootFS.Layers)
	}
	return nil
}

// archive writes an image as docker load reads it.
type archive struct {
	out *tar.Writer
	// unpacked is what the layers to come may unpack to, in bytes.
	unpacked int64
}

// manifestEntry is one image in manifest.json.
type manifestEntry struct {
	Config   string
	RepoTags []string
	Layers   []string
}

func (a *archive) write(img v1.Image, skip int, tags []string) error {
	layers, err := img.Layers()
	if err != nil {
		return fmt.Errorf("read the layers: %w", err)
	}
	for n, layer := range layers[skip:] {
		if err := a.layer(layerName(skip+n), layer); err != nil {
			return fmt.Errorf("layer %d: %w", skip+n+1, err)
		}
	}
	return a.describe(img, len(layers), tags)
}

// describe writes what is not layers, and ends the archive.
func (a *archive) describe(img v1.Image, layers int, tags []string) error {
	config, err := img.RawConfigFile()
	if err != nil {
		return fmt.Errorf("read the configuration: %w", err)
	}
	entry := manifestEntry{Config: "config.json", RepoTags: tags}
	for n := range layers {
		entry.Layers = append(entry.Layers, layerName(n))
	}
	manifest, err := json.Marshal([]manifestEntry{entry})
	if err != nil {
		return fmt.Errorf("write manifest.json: %w", err)
	}
	if err := a.file(entry.Config, int64(len(config)), bytes.NewReader(config)); err != nil {
		return err
	}
	if err := a.file("manifest.json", int64(len(manifest)), bytes.NewReader(manifest)); err != nil {
		return err
	}
	return a.out.Close()
}

// layerName is the file of the layer at a place from the bottom.
func layerName(n int) string { return fmt.Sprintf("layer%d", n+1) }

// layer copies a layer, while its unpacked size is counted.
func (a *archive) layer(name string, layer v1.Layer) error {
	size, err := layer.Size()
	if err != nil {
		return err
	}
	compressed, err := layer.Compressed()
	if err != nil {
		return err
	}
	defer compressed.Close()
	meter := newMeter(a.unpacked)
	err = a.file(name, size, io.TeeReader(compressed, meter))
	unpacked, meterErr := meter.finish()
	a.unpacked -= unpacked
	if err != nil && !errors.Is(err, errMeterEnded) {
		return err
	}
	return meterErr
}

func (a *archive) file(name string, size int64, content io.Reader) error {
	header := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644}
	if err := a.out.WriteHeader(header); err != nil {
		return err
	}
	_, err := io.Copy(a.out, content)
	return err
}

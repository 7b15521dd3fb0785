package images

import (
	"context"
	"errors"
	"fmt"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.uber.org/zap"
)

// tellEvery is how often the log tells of an image that arrives.
const tellEvery = 30 * time.Second

// fetch brings the registry's image into the engine, unless it is there.
func (i *Images) fetch(ctx context.Context, uri string, progress func(done, total int64)) error {
	r, err := parse(uri)
	if err != nil {
		return err
	}
	registry := i.cfg.Registry()
	watch, stop := newStallWatch(ctx, i.cfg.Stall)
	defer stop()
	img, digest, err := i.resolve(watch.ctx, registry, r)
	if err != nil {
		err = fmt.Errorf("%w: %w", errUnknown, err)
	} else {
		err = i.obtain(ctx, watch, source{registry: registry, ref: r}, img, digest, progress)
	}
	if errors.Is(err, ErrSpace) {
		// What has arrived of it must not take the place of events.
		i.cache.relieve()
	}
	if err != nil {
		return fmt.Errorf("image %s cannot be fetched from %s: %w", uri, registry, watch.explain(err))
	}
	return nil
}

// errUnknown is the error when the registry did not say what the image is; what
// the cache has under that name is then the best there is.
var errUnknown = errors.New("the registry does not tell what it is")

// obtain sees to it that the engine has an image that the registry has named.
func (i *Images) obtain(ctx context.Context, watch *stallWatch, from source, img v1.Image, digest v1.Hash, progress func(done, total int64)) error {
	uri := from.ref.uri
	i.loading.RLock()
	defer i.loading.RUnlock()
	defer i.cache.pin(uri)()
	i.cache.relieve()
	if err := i.cache.remember(uri, img, digest); err != nil {
		return err
	}
	known, err := i.adopt(ctx, from.ref, digest)
	if err != nil || known {
		return err
	}
	kept, _, err := i.cache.find(uri)
	if err != nil {
		return err
	}
	err = i.load(ctx, kept, tagsOf(from.ref, digest), func(layers []v1.Descriptor) error {
		return i.bring(ctx, watch, from, digest, layers, progress)
	})
	return errors.Join(err, i.cache.trim())
}

// bring fetches the layers that the cache does not have.
func (i *Images) bring(ctx context.Context, watch *stallWatch, from source, digest v1.Hash, layers []v1.Descriptor, progress func(done, total int64)) error {
	// The engine's work on what has arrived is nobody's stall.
	defer watch.rest()
	missing, done, total := i.cache.missing(layers)
	if len(missing) == 0 {
		return nil
	}
	if err := i.checkSpace(ctx, total-done, layers); err != nil {
		return err
	}
	log := i.log.With(zap.String("image", from.ref.uri), zap.String("digest", digest.String()))
	log.Info("image is fetched", zap.Int("layers", len(missing)), zap.Int64("bytes", total-done), zap.Int64("kept_from_last_time", done))
	started, told := time.Now(), time.Now()
	watch.begin(done)
	arrived := func(n int64) {
		done += n
		watch.moved(done)
		if progress != nil {
			progress(done, total)
		}
		if now := time.Now(); now.Sub(told) >= tellEvery {
			told = now
			log.Info("image arrives", zap.Int64("bytes", done), zap.Int64("of", total))
		}
	}
	for _, layer := range missing {
		if err := i.pull(watch.ctx, from, layer, arrived); err != nil {
			return fmt.Errorf("layer %s: %w", layer.Digest, err)
		}
	}
	log.Info("image has arrived", zap.Duration("took", time.Since(started)))
	return nil
}

// missing returns the layers that are not there, once each, how much there is of
// them, and how much they are, in bytes.
func (c *cache) missing(layers []v1.Descriptor) (missing []v1.Descriptor, done, total int64) {
	seen := map[v1.Hash]bool{}
	for _, layer := range layers {
		if seen[layer.Digest] || c.has(layer) {
			continue
		}
		seen[layer.Digest] = true
		missing = append(missing, layer)
		done += c.have(layer)
		total += layer.Size
	}
	return missing, done, total
}

// restore loads an image of the cache into the engine, without asking anybody.
func (i *Images) restore(ctx context.Context, uri string) error {
	r, err := parse(uri)
	if err != nil {
		return err
	}
	i.loading.RLock()
	defer i.loading.RUnlock()
	defer i.cache.pin(uri)()
	img, digest, err := i.cache.find(uri)
	if err != nil {
		return err
	}
	if err := i.check(img); err != nil {
		return err
	}
	err = i.load(ctx, img, tagsOf(r, digest), func(layers []v1.Descriptor) error {
		if missing, _, _ := i.cache.missing(layers); len(missing) > 0 {
			return fmt.Errorf("%d layers are not in the cache", len(missing))
		}
		return nil
	})
	if err == nil {
		i.log.Info("image comes from the cache", zap.String("image", uri), zap.String("digest", digest.String()))
	}
	return err
}

func tagsOf(r ref, digest v1.Hash) []string { return []string{r.local(), manifestTag(digest)} }

// checkSpace refuses to fetch what cannot fit: the layers into the cache; and
// into the engine's data, where they are stored once as they are and once
// unpacked, which is no less.
func (i *Images) checkSpace(ctx context.Context, missing int64, layers []v1.Descriptor) error {
	var packed int64
	for _, layer := range layers {
		packed += layer.Size
	}
	need := missing
	here, err := i.cache.space(i.cfg.Cache)
	if err != nil {
		return err
	}
	engine, known := i.engineSpace(ctx)
	switch {
	case known && engine.fs == here.fs:
		need += 2 * packed
	case known && engine.free-2*packed < i.cfg.Floor:
		return i.engineFull(engine, 2*packed)
	}
	return i.cache.room(need)
}

// engineSpace returns what is left where the engine keeps its data, when that is
// a place that can be looked at.
func (i *Images) engineSpace(ctx context.Context) (space, bool) {
	info, err := i.engine.Info(ctx)
	if err != nil || info.DockerRootDir == "" {
		return space{}, false
	}
	left, err := i.cache.space(info.DockerRootDir)
	if err != nil {
		i.log.Debug("space of the engine is unknown", zap.Error(err))
		return space{}, false
	}
	return left, true
}

// engineRoom returns how much the layers from skip on may unpack to.
func (i *Images) engineRoom(ctx context.Context, img v1.Image, skip int) (int64, error) {
	left, known := i.engineSpace(ctx)
	if !known {
		return i.cfg.Unpacked, nil
	}
	layers, err := img.Layers()
	if err != nil {
		return 0, fmt.Errorf("read the layers: %w", err)
	}
	var packed int64
	for n, layer := range layers[skip:] {
		size, err := layer.Size()
		if err != nil {
			return 0, fmt.Errorf("size of layer %d: %w", n+1, err)
		}
		packed += size
	}
	room := left.free - packed - i.cfg.Floor
	if room < 0 {
		return 0, i.engineFull(left, packed)
	}
	return min(i.cfg.Unpacked, room), nil
}

func (i *Images) engineFull(left space, need int64) error {
	return fmt.Errorf("%w for the engine: %d MB are needed, %d MB are free, of which %d stay free",
		ErrSpace, need>>20, left.free>>20, i.cfg.Floor>>20)
}

package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/system"
	"github.com/docker/docker/client"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.uber.org/zap"
)

// Engine is what images needs of a Docker engine; *client.Client has it.
type Engine interface {
	ImageLoad(ctx context.Context, input io.Reader, options ...client.ImageLoadOption) (image.LoadResponse, error)
	ImageInspect(ctx context.Context, id string, options ...client.ImageInspectOption) (image.InspectResponse, error)
	ImageList(ctx context.Context, options image.ListOptions) ([]image.Summary, error)
	ImageTag(ctx context.Context, source, target string) error
	ImageRemove(ctx context.Context, id string, options image.RemoveOptions) ([]image.DeleteResponse, error)
	Info(ctx context.Context) (system.Info, error)
}

// Config says where images come from. Zero limits take the defaults.
type Config struct {
	// Transport reaches the server: with its trust, and through its proxy.
	Transport http.RoundTripper
	// Registry returns "name:port" of the server. It is asked for each fetch,
	// since the server can change its own address.
	Registry func() string
	// Cache is the directory that keeps images as they travelled. It must outlive
	// the engine's data, or the cache is of no use; New makes it.
	Cache string
	// Pause is the file of the pause program.
	Pause string
	// Flush waits until the disk has what the engine has written; it may be nil.
	Flush func() error
	Limits
}

// Limits bound what one image may cost.
type Limits struct {
	// Layers is the largest number of layers. Default: 127, what the overlay
	// driver of Docker can stack.
	Layers int
	// Bytes is the largest sum of all layers as they travel. Default: 4 GiB.
	Bytes int64
	// Unpacked is the largest sum of all layers unpacked. Default: 16 GiB.
	Unpacked int64
	// Cache is the largest sum of all files in the cache when no image is being
	// fetched. Default: 4 GiB.
	Cache int64
	// Floor is the disk space that images leave free, in bytes, where the cache is
	// and where the engine keeps its data. Default: 512 MiB, what the events of
	// the longest outage take.
	Floor int64
	// Stall is the time within which something must arrive. Default: 2 minutes.
	Stall time.Duration
}

func (l *Limits) setDefaults() {
	if l.Layers == 0 {
		l.Layers = 127
	}
	if l.Bytes == 0 {
		l.Bytes = 4 << 30
	}
	if l.Unpacked == 0 {
		l.Unpacked = 16 << 30
	}
	if l.Cache == 0 {
		l.Cache = 4 << 30
	}
	if l.Floor == 0 {
		l.Floor = 512 << 20
	}
	if l.Stall == 0 {
		l.Stall = 2 * time.Minute
	}
}

// Images keeps the images of services in an engine.
type Images struct {
	cfg    Config
	engine Engine
	cache  *cache
	log    *zap.Logger
	// loading is held for reading while an image is made, and for writing while
	// unneeded ones are removed: a load relies on the layers that it leaves out.
	loading sync.RWMutex
	// boot is the boot id of the machine.
	boot string
	// settled is set when interrupted loads have been seen to; settling guards it.
	settling sync.Mutex
	settled  bool
}

// New returns the keeper of the engine's images. What the cache has is used
// from then on.
func New(cfg Config, engine Engine, log *zap.Logger) (*Images, error) {
	cfg.setDefaults()
	cache, err := openCache(cfg.Cache, cfg.Limits, log)
	if err != nil {
		return nil, err
	}
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	return &Images{cfg: cfg, engine: engine, cache: cache, log: log, boot: boot}, nil
}

// ErrAbsent is the error for an image that the engine does not have.
var ErrAbsent = errors.New("the engine does not have the image")

// Present returns the engine's id of the image "repo:tag", and the digest of
// its manifest, without asking anybody else. The error is ErrAbsent when the
// engine does not have it.
func (i *Images) Present(ctx context.Context, uri string) (id, digest string, err error) {
	r, err := parse(uri)
	if err != nil {
		return "", "", err
	}
	if err := i.settle(ctx); err != nil {
		return "", "", err
	}
	found, err := i.engine.ImageInspect(ctx, r.local())
	switch {
	case cerrdefs.IsNotFound(err):
		return "", "", fmt.Errorf("image %s: %w", uri, ErrAbsent)
	case err != nil:
		return "", "", fmt.Errorf("look for image %s in the engine: %w", uri, err)
	}
	return found.ID, digestOf(found.RepoTags), nil
}

// Ensure sees to it that the engine has the newest image "repo:tag" of the
// registry, and returns what Present does. When the registry cannot be reached
// or refuses, the image that the engine or the cache has is good enough.
// Progress is told in bytes of the layers; it may be nil.
func (i *Images) Ensure(ctx context.Context, uri string, progress func(done, total int64)) (id, digest string, err error) {
	if err := i.settle(ctx); err != nil {
		return "", "", err
	}
	fetchErr := i.fetch(ctx, uri, progress)
	id, digest, err = i.Present(ctx, uri)
	if errors.Is(fetchErr, errUnknown) && errors.Is(err, ErrAbsent) && ctx.Err() == nil {
		if err := i.restore(ctx, uri); err != nil {
			i.log.Debug("image cannot be had from the cache", zap.String("image", uri), zap.Error(err))
		}
		id, digest, err = i.Present(ctx, uri)
	}
	switch {
	case fetchErr == nil || ctx.Err() != nil:
		return id, digest, errors.Join(err, ctx.Err())
	case err == nil:
		i.log.Warn("image cannot be checked, the present one stays", zap.String("image", uri), zap.Error(fetchErr))
		return id, digest, nil
	case errors.Is(err, ErrAbsent):
		return "", "", fetchErr
	}
	return "", "", errors.Join(fetchErr, err)
}

// adopt gives the image with that manifest its name, if the engine has one.
func (i *Images) adopt(ctx context.Context, r ref, digest v1.Hash) (bool, error) {
	found, err := i.engine.ImageInspect(ctx, manifestTag(digest))
	switch {
	case cerrdefs.IsNotFound(err):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("look for %s in the engine: %w", digest, err)
	}
	for _, tag := range found.RepoTags {
		if tag == r.local() {
			return true, nil
		}
	}
	if err := i.engine.ImageTag(ctx, found.ID, r.local()); err != nil {
		return false, fmt.Errorf("name image %s: %w", r.uri, err)
	}
	return true, nil
}

// Prune removes all images of services but those that are named, from the engine
// and from the cache; when the disk is nearly full, from the cache all. One that a
// container still uses stays until the next time; while an image is fetched, all
// stay.
func (i *Images) Prune(ctx context.Context, keep []string) error {
	if !i.loading.TryLock() {
		return nil
	}
	defer i.loading.Unlock()
	wanted := map[string]bool{}
	for _, uri := range keep {
		if r, err := parse(uri); err == nil {
			wanted[r.local()] = true
		}
	}
	errs := []error{i.cache.sweep(func(uri string) bool { return wanted[services+uri] })}
	i.cache.relieve()
	list, err := i.engine.ImageList(ctx, image.ListOptions{})
	if err != nil {
		return errors.Join(append(errs, fmt.Errorf("list images: %w", err))...)
	}
	for _, found := range list {
		errs = append(errs, i.pruneOne(ctx, found, wanted))
	}
	return errors.Join(errs...)
}

// pruneOne takes away the names of ours that nobody wants; the engine deletes
// an image with its last name. The digest goes last: without a name it is the
// mark by which the next time finds what this one left.
func (i *Images) pruneOne(ctx context.Context, found image.Summary, wanted map[string]bool) error {
	var drop, digests []string
	kept := false
	for _, tag := range found.RepoTags {
		switch {
		case strings.HasPrefix(tag, manifests):
			digests = append(digests, tag)
		case strings.HasPrefix(tag, services) && !wanted[tag]:
			drop = append(drop, tag)
		default:
			kept = true
		}
	}
	if !kept {
		drop = append(drop, digests...)
	}
	for _, tag := range drop {
		if err := i.untag(ctx, tag); err != nil {
			return err
		}
	}
	return nil
}

package images

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.uber.org/zap"
)

const (
	indexName = "index.json"
	blobsName = "blobs"
	// partSuffix marks a layer that has not arrived whole.
	partSuffix = ".part"
	// maxIndex bounds the index, in bytes: some thousand images.
	maxIndex = 1 << 20
)

// cache keeps images as they travelled, in a directory that outlives the
// engine's data: index.json says which manifest an image has, blobs/ holds
// manifests, configurations and layers by their SHA-256.
//
// Invariants:
//   - A blob has its final name only after its digest was found right, and its
//     digest is looked at again whenever it is read.
//   - What no image of the index names is removed by sweep.
//   - The index is replaced whole. Without a readable one the cache is empty.
//   - Pinned images are never evicted.
type cache struct {
	dir    string
	limits Limits
	space  func(dir string) (space, error)
	log    *zap.Logger

	mu     sync.Mutex
	images map[string]entry
	// pins counts those who need an image just now.
	pins map[string]int
	// arriving has the blobs that somebody fetches; the channel is closed when
	// he has ended.
	arriving map[v1.Hash]chan struct{}
}

// entry is an image of the cache.
type entry struct {
	Manifest v1.Hash   `json:"manifest"`
	Used     time.Time `json:"used"`
}

func openCache(dir string, limits Limits, log *zap.Logger) (*cache, error) {
	if err := os.MkdirAll(filepath.Join(dir, blobsName), 0o750); err != nil {
		return nil, fmt.Errorf("open cache of images: %w", err)
	}
	c := &cache{
		dir: dir, limits: limits, space: spaceOf, log: log,
		images: map[string]entry{}, pins: map[string]int{}, arriving: map[v1.Hash]chan struct{}{},
	}
	if err := c.readIndex(); err != nil {
		log.Warn("cache of images starts empty", zap.Error(err))
		c.images = map[string]entry{}
	}
	return c, nil
}

func (c *cache) readIndex() error {
	text, err := readBounded(filepath.Join(c.dir, indexName), maxIndex)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &c.images); err != nil {
		return fmt.Errorf("%s: %w", indexName, err)
	}
	for uri, e := range c.images {
		if _, err := parse(uri); err != nil || !usable(e.Manifest) {
			return fmt.Errorf("%s: entry %q cannot be", indexName, uri)
		}
	}
	return nil
}

// saveIndex replaces the index; c.mu is held.
func (c *cache) saveIndex() error {
	text, err := json.Marshal(c.images)
	if err != nil {
		return fmt.Errorf("write index of images: %w", err)
	}
	if err := writeWhole(filepath.Join(c.dir, indexName), text); err != nil {
		return fmt.Errorf("write index of images: %w", err)
	}
	return nil
}

// usable tells whether a digest can be a file's name.
func usable(hash v1.Hash) bool {
	return hash.Algorithm == "sha256" && len(hash.Hex) == 64 && strings.Trim(hash.Hex, "0123456789abcdef") == ""
}

func (c *cache) path(hash v1.Hash) string { return filepath.Join(c.dir, blobsName, hash.Hex) }

// pin keeps an image from being evicted until the function is called that it
// returns. The image need not be there yet.
func (c *cache) pin(uri string) func() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pins[uri]++
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.pins[uri]--; c.pins[uri] == 0 {
			delete(c.pins, uri)
		}
	}
}

// remember makes a manifest and its configuration those of an image, which the
// caller has pinned.
func (c *cache) remember(uri string, img v1.Image, manifest v1.Hash) error {
	m, err := img.Manifest()
	if err != nil {
		return err
	}
	raw, err := img.RawManifest()
	if err != nil {
		return err
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := errors.Join(c.keep(manifest, raw), c.keep(m.Config.Digest, config)); err != nil {
		return fmt.Errorf("keep image %s: %w", uri, err)
	}
	c.images[uri] = entry{Manifest: manifest, Used: time.Now().UTC().Round(time.Second)}
	return c.saveIndex()
}

// keep stores a small blob, unless it is there; c.mu is held, so that nobody
// tidies up half of it.
func (c *cache) keep(hash v1.Hash, content []byte) error {
	if !usable(hash) {
		return fmt.Errorf("digest %s: want one of sha256", hash)
	}
	if c.has(v1.Descriptor{Digest: hash, Size: int64(len(content))}) {
		return nil
	}
	return writeWhole(c.path(hash), content)
}

// has tells whether a blob is there, by name and size.
func (c *cache) has(blob v1.Descriptor) bool {
	info, err := os.Stat(c.path(blob.Digest))
	return err == nil && info.Mode().IsRegular() && info.Size() == blob.Size
}

// have returns how much of a blob is there, in bytes.
func (c *cache) have(blob v1.Descriptor) int64 {
	if c.has(blob) {
		return blob.Size
	}
	info, err := os.Stat(c.path(blob.Digest) + partSuffix)
	if err != nil {
		return 0
	}
	return min(info.Size(), blob.Size)
}

// writeWhole replaces a file, so that a power cut leaves the old or the new one.
func writeWhole(path string, content []byte) error {
	temp, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(temp.Name()) }()
	_, err = temp.Write(content)
	if err := errors.Join(err, temp.Sync(), temp.Close()); err != nil {
		return err
	}
	return os.Rename(temp.Name(), path)
}

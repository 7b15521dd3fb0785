package images

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// ErrSpace is the error for an image for which there is too little disk space.
var ErrSpace = errors.New("too little disk space")

// space is what a file system has left for unprivileged programs.
type space struct {
	free int64
	fs   unix.Fsid
}

func spaceOf(dir string) (space, error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(dir, &stat); err != nil {
		return space{}, fmt.Errorf("free space of %s: %w", dir, err)
	}
	return space{free: int64(stat.Bavail) * stat.Bsize, fs: stat.Fsid}, nil // #nosec G115 -- no disk has 8 EiB
}

// room sees to it that so many bytes can be written without touching the floor,
// if need be by evicting other images. The error is ErrSpace.
func (c *cache) room(need int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		left, err := c.space(c.dir)
		switch {
		case err != nil:
			return err
		case left.free-need >= c.limits.Floor:
			return nil
		case !c.evictOldest():
			return fmt.Errorf("%w: %d MB are needed, %d MB are free, of which %d stay free for events",
				ErrSpace, need>>20, left.free>>20, c.limits.Floor>>20)
		}
	}
}

// relieve evicts images until the floor is free again, and tells whether it is.
func (c *cache) relieve() bool { return c.room(0) == nil }

// trim evicts the images that were not used for longest until the others fit
// the cache's bound.
func (c *cache) trim() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		size, err := c.size()
		if err != nil || size <= c.limits.Cache || !c.evictOldest() {
			return err
		}
	}
}

// sweep removes the images that are not wanted, and what belongs to none.
func (c *cache) sweep(wanted func(uri string) bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	changed := false
	for uri := range c.images {
		if c.pins[uri] == 0 && !wanted(uri) {
			delete(c.images, uri)
			changed = true
		}
	}
	if changed {
		if err := c.saveIndex(); err != nil {
			return err
		}
	}
	return c.collect()
}

// evictOldest removes the image that was not used for longest, and tells whether
// there was one; c.mu is held.
func (c *cache) evictOldest() bool {
	oldest := ""
	for uri, e := range c.images {
		if c.pins[uri] == 0 && (oldest == "" || e.Used.Before(c.images[oldest].Used)) {
			oldest = uri
		}
	}
	if oldest == "" {
		return false
	}
	delete(c.images, oldest)
	c.log.Warn("image leaves the cache for want of space", zap.String("image", oldest))
	// On a full disk not even the index can be written. What it names then
	// that is gone counts as not there.
	if err := errors.Join(c.collect(), c.saveIndex()); err != nil {
		c.log.Warn("cache of images cannot be tidied", zap.Error(err))
	}
	return true
}

// collect removes the blobs that no image names; c.mu is held. What arrives
// stays.
func (c *cache) collect() error {
	named := map[string]bool{}
	for _, e := range c.images {
		for _, hash := range c.blobsOf(e.Manifest) {
			named[hash.Hex] = true
		}
	}
	for hash := range c.arriving {
		named[hash.Hex] = true
	}
	files, err := os.ReadDir(filepath.Join(c.dir, blobsName))
	if err != nil {
		return fmt.Errorf("list cache of images: %w", err)
	}
	var errs []error
	for _, file := range files {
		if named[strings.TrimSuffix(file.Name(), partSuffix)] {
			continue
		}
		err := os.Remove(filepath.Join(c.dir, blobsName, file.Name()))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove from cache of images: %w", err))
		}
	}
	return errors.Join(errs...)
}

// blobsOf returns the digests that belong to a manifest, its own included.
func (c *cache) blobsOf(manifest v1.Hash) []v1.Hash {
	hashes := []v1.Hash{manifest}
	m, err := c.manifest(manifest)
	if err != nil {
		return hashes
	}
	hashes = append(hashes, m.Config.Digest)
	for _, layer := range m.Layers {
		hashes = append(hashes, layer.Digest)
	}
	return hashes
}

// size returns how much the blobs are together, in bytes.
func (c *cache) size() (int64, error) {
	files, err := os.ReadDir(filepath.Join(c.dir, blobsName))
	if err != nil {
		return 0, fmt.Errorf("list cache of images: %w", err)
	}
	var size int64
	for _, file := range files {
		info, err := file.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("list cache of images: %w", err)
		}
		size += info.Size()
	}
	return size, nil
}

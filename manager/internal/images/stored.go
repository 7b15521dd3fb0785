package images

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// stored is an image of the cache, as go-containerregistry wants it. Its layers
// need not be there before they are read.
type stored struct {
	cache            *cache
	media            types.MediaType
	manifest, config []byte
}

// find returns the image that the cache knows by that name, and the digest of
// its manifest.
func (c *cache) find(uri string) (v1.Image, v1.Hash, error) {
	c.mu.Lock()
	digest := c.images[uri].Manifest
	c.mu.Unlock()
	if !usable(digest) {
		return nil, v1.Hash{}, fmt.Errorf("cache: %w", ErrAbsent)
	}
	raw, err := c.small(digest, maxManifest)
	if err != nil {
		return nil, v1.Hash{}, err
	}
	m, err := v1.ParseManifest(bytes.NewReader(raw))
	if err != nil {
		return nil, v1.Hash{}, fmt.Errorf("manifest %s of the cache: %w", digest, err)
	}
	config, err := c.small(m.Config.Digest, maxConfig)
	if err != nil {
		return nil, v1.Hash{}, err
	}
	img, err := partial.CompressedToImage(&stored{cache: c, media: m.MediaType, manifest: raw, config: config})
	return img, digest, err
}

// manifest reads a manifest of the cache.
func (c *cache) manifest(digest v1.Hash) (*v1.Manifest, error) {
	raw, err := c.small(digest, maxManifest)
	if err != nil {
		return nil, err
	}
	return v1.ParseManifest(bytes.NewReader(raw))
}

// small reads a blob of at most so many bytes and checks its digest.
func (c *cache) small(digest v1.Hash, most int64) ([]byte, error) {
	if !usable(digest) {
		return nil, fmt.Errorf("digest %s: want one of sha256", digest)
	}
	content, err := readBounded(c.path(digest), most)
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(content); hex.EncodeToString(sum[:]) != digest.Hex {
		return nil, errors.Join(fmt.Errorf("blob %s of the cache is damaged", digest), os.Remove(c.path(digest)))
	}
	return content, nil
}

// RawManifest is part of partial.CompressedImageCore.
func (s *stored) RawManifest() ([]byte, error) { return s.manifest, nil }

// RawConfigFile is part of partial.CompressedImageCore.
func (s *stored) RawConfigFile() ([]byte, error) { return s.config, nil }

// MediaType is part of partial.CompressedImageCore.
func (s *stored) MediaType() (types.MediaType, error) { return s.media, nil }

// LayerByDigest is part of partial.CompressedImageCore.
func (s *stored) LayerByDigest(digest v1.Hash) (partial.CompressedLayer, error) {
	m, err := v1.ParseManifest(bytes.NewReader(s.manifest))
	if err != nil {
		return nil, err
	}
	for _, layer := range m.Layers {
		if layer.Digest == digest {
			return storedLayer{cache: s.cache, blob: layer}, nil
		}
	}
	return nil, fmt.Errorf("the image has no layer %s", digest)
}

// storedLayer is a layer of the cache.
type storedLayer struct {
	cache *cache
	blob  v1.Descriptor
}

// Digest is part of partial.CompressedLayer.
func (l storedLayer) Digest() (v1.Hash, error) { return l.blob.Digest, nil }

// Size is part of partial.CompressedLayer.
func (l storedLayer) Size() (int64, error) { return l.blob.Size, nil }

// MediaType is part of partial.CompressedLayer.
func (l storedLayer) MediaType() (types.MediaType, error) { return l.blob.MediaType, nil }

// Compressed is part of partial.CompressedLayer. A disk forgets: the reader
// compares the digest, and removes a blob that has changed.
func (l storedLayer) Compressed() (io.ReadCloser, error) {
	file, err := os.Open(l.cache.path(l.blob.Digest))
	if err != nil {
		return nil, err
	}
	return &checked{File: file, sum: sha256.New(), want: l.blob.Digest}, nil
}

// checked is a file whose content is compared with a digest when all of it was
// read.
type checked struct {
	*os.File
	sum  hash.Hash
	want v1.Hash
}

func (c *checked) Read(buf []byte) (int, error) {
	n, err := c.File.Read(buf)
	_, _ = c.sum.Write(buf[:n])
	if errors.Is(err, io.EOF) && hex.EncodeToString(c.sum.Sum(nil)) != c.want.Hex {
		return n, errors.Join(fmt.Errorf("layer %s of the cache is damaged", c.want), os.Remove(c.Name()))
	}
	return n, err
}

// readBounded reads a file of at most so many bytes.
func readBounded(path string, most int64) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	content, err := io.ReadAll(io.LimitReader(file, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(content)) > most {
		return nil, fmt.Errorf("%s has more than %d bytes", path, most)
	}
	return content, nil
}

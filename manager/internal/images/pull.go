package images

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

const (
	// pullAgain is how often a layer is asked for again within one fetch when it
	// breaks off before anything has arrived.
	pullAgain = 3
	// pullPause is the pause before that.
	pullPause = time.Second
	// floorEvery is how many bytes arrive between two looks at the disk.
	floorEvery = 8 << 20
)

// errBrokenOff is the error for a layer that can go on from where it is.
var errBrokenOff = errors.New("it broke off")

// source is where an image comes from.
type source struct {
	registry string
	ref      ref
}

// pull brings a layer into the cache, from where an earlier pull broke off.
// arrived is told of each piece; when a registry does not go on but begins anew,
// of less than nothing.
func (i *Images) pull(ctx context.Context, from source, layer v1.Descriptor, arrived func(int64)) error {
	release, err := i.cache.claim(ctx, layer.Digest)
	if err != nil {
		return err
	}
	defer release()
	for failures := 0; ; {
		before := i.cache.have(layer)
		if i.cache.has(layer) {
			return nil
		}
		err := i.pullOnce(ctx, from, layer, arrived)
		if err == nil || !errors.Is(err, errBrokenOff) || ctx.Err() != nil {
			return err
		}
		if failures++; i.cache.have(layer) > before {
			failures = 0
		}
		if failures >= pullAgain {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pullPause):
		}
	}
}

// claim waits until nobody else fetches the blob; two images may have a layer in
// common.
func (c *cache) claim(ctx context.Context, blob v1.Hash) (release func(), err error) {
	for {
		c.mu.Lock()
		other := c.arriving[blob]
		if other == nil {
			mine := make(chan struct{})
			c.arriving[blob] = mine
			c.mu.Unlock()
			return func() {
				c.mu.Lock()
				defer c.mu.Unlock()
				delete(c.arriving, blob)
				close(mine)
			}, nil
		}
		c.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// pullOnce makes one request for what is missing of a layer.
func (i *Images) pullOnce(ctx context.Context, from source, layer v1.Descriptor, arrived func(int64)) error {
	p, err := i.cache.openPart(layer)
	if err != nil {
		return err
	}
	defer func() { _ = p.file.Close() }()
	if p.size == layer.Size {
		return p.finish()
	}
	body, offset, err := i.blob(ctx, from, layer, p.size)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	if offset < p.size {
		arrived(-p.size)
		if err := p.restart(); err != nil {
			return err
		}
	}
	if err := i.copyPart(p, body, arrived); err != nil {
		return err
	}
	return p.finish()
}

// copyPart appends what arrives, at most up to the layer's size.
func (i *Images) copyPart(p *part, body io.Reader, arrived func(int64)) error {
	buffer := make([]byte, 64<<10)
	for unseen := int64(0); p.size < p.want.Size; {
		n, err := body.Read(buffer[:min(int64(len(buffer)), p.want.Size-p.size)])
		if writeErr := p.write(buffer[:n]); writeErr != nil {
			return writeErr
		}
		arrived(int64(n))
		if unseen += int64(n); unseen >= floorEvery {
			unseen = 0
			if err := i.cache.room(0); err != nil {
				return err
			}
		}
		if err != nil && p.size < p.want.Size {
			return fmt.Errorf("%w after %d of %d bytes: %w", errBrokenOff, p.size, p.want.Size, err)
		}
	}
	return nil
}

// blob asks for a layer from an offset on, and returns the offset that the
// registry begins at: that one or 0.
func (i *Images) blob(ctx context.Context, from source, layer v1.Descriptor, offset int64) (io.ReadCloser, int64, error) {
	url := "https://" + from.registry + "/v2/" + from.ref.repository() + "/blobs/" + layer.Digest.String()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, 0, err
	}
	// Packed a second time on its way, the digest would be that of other bytes.
	req.Header.Set("Accept-Encoding", "identity")
	if offset > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	resp, err := onlyRegistry{host: from.registry, next: i.cfg.Transport}.RoundTrip(req)
	if errors.Is(err, errRefused) {
		return nil, 0, err
	}
	if err != nil {
		return nil, 0, fmt.Errorf("%w: %w", errBrokenOff, err)
	}
	start, err := startOf(resp, offset, layer.Size)
	if err != nil {
		return nil, 0, errors.Join(err, resp.Body.Close())
	}
	return resp.Body, start, nil
}

// startOf tells at which byte an answer begins.
func startOf(resp *http.Response, offset, size int64) (int64, error) {
	want := fmt.Sprintf("bytes %d-%d/%d", offset, size-1, size)
	switch got := resp.Header.Get("Content-Range"); {
	case resp.StatusCode == http.StatusOK:
		return 0, nil
	case resp.StatusCode == http.StatusPartialContent && offset > 0 && got == want:
		return offset, nil
	case resp.StatusCode == http.StatusPartialContent:
		return 0, fmt.Errorf("the registry sends the range %.60q: want %q", got, want)
	case resp.StatusCode >= http.StatusInternalServerError:
		return 0, fmt.Errorf("%w: the registry answers with status %d", errBrokenOff, resp.StatusCode)
	}
	return 0, fmt.Errorf("the registry answers with status %d", resp.StatusCode)
}

// part is a layer that has not arrived whole.
type part struct {
	cache *cache
	want  v1.Descriptor
	file  *os.File
	size  int64
	sum   hash.Hash
}

// openPart opens what has arrived of a layer so far. The caller has claimed it
// and closes the file.
func (c *cache) openPart(layer v1.Descriptor) (*part, error) {
	file, err := os.OpenFile(c.path(layer.Digest)+partSuffix, os.O_RDWR|os.O_CREATE, 0o640) // #nosec G302 -- the sensor's group may read
	if err != nil {
		return nil, err
	}
	p := &part{cache: c, want: layer, file: file, sum: sha256.New()}
	p.size, err = io.Copy(p.sum, io.LimitReader(file, layer.Size+1))
	if err == nil && p.size > layer.Size {
		err = p.restart()
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return p, nil
}

// restart forgets what has arrived.
func (p *part) restart() error {
	p.size, p.sum = 0, sha256.New()
	_, err := p.file.Seek(0, io.SeekStart)
	return errors.Join(err, p.file.Truncate(0))
}

func (p *part) write(content []byte) error {
	n, err := p.file.Write(content)
	p.size += int64(n)
	_, _ = p.sum.Write(content[:n])
	return err
}

// finish gives the layer its name, or removes it when it is another one.
func (p *part) finish() error {
	if got := hex.EncodeToString(p.sum.Sum(nil)); got != p.want.Digest.Hex {
		return errors.Join(fmt.Errorf("the registry sends another layer, with the digest %s", got), os.Remove(p.file.Name()))
	}
	if err := p.file.Sync(); err != nil {
		return err
	}
	return os.Rename(p.file.Name(), p.cache.path(p.want.Digest))
}

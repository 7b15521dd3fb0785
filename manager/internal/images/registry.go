package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// maxConfig is the largest configuration of an image, in bytes. Those of
// existing services have some ten thousand.
const maxConfig = 1 << 20

// maxManifest is the largest manifest, in bytes: what registries have to take
// (OCI distribution specification 1.1). It bounds all answers that are read into
// memory; the client itself would read 100 MiB.
const maxManifest = 4 << 20

// resolve asks the registry for the image, and checks what it says about it.
// Layers are not fetched yet.
func (i *Images) resolve(ctx context.Context, registry string, r ref) (v1.Image, v1.Hash, error) {
	tag, err := name.NewTag(registry+"/"+r.uri, name.StrictValidation)
	if err != nil {
		return nil, v1.Hash{}, err
	}
	img, err := remote.Image(tag,
		remote.WithContext(ctx),
		remote.WithTransport(bounded{onlyRegistry{host: registry, next: i.cfg.Transport}}),
		remote.WithPlatform(v1.Platform{OS: "linux", Architecture: runtime.GOARCH}),
	)
	if err != nil {
		return nil, v1.Hash{}, explainStatus(err)
	}
	if err := i.check(img); err != nil {
		return nil, v1.Hash{}, err
	}
	digest, err := img.Digest()
	if err != nil {
		return nil, v1.Hash{}, err
	}
	if !usable(digest) {
		return nil, v1.Hash{}, fmt.Errorf("digest %s: want one of sha256", digest)
	}
	return img, digest, nil
}

func explainStatus(err error) error {
	var answer *transport.Error
	if errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound {
		return fmt.Errorf("the server does not have it: %w", err)
	}
	return err
}

// check holds manifest and configuration against the limits.
func (i *Images) check(img v1.Image) error {
	manifest, err := img.Manifest()
	if err != nil {
		return fmt.Errorf("read the manifest: %w", err)
	}
	if !manifest.MediaType.IsImage() || !manifest.Config.MediaType.IsConfig() {
		return fmt.Errorf("it is %.100q with a configuration of %.100q: want an image", manifest.MediaType, manifest.Config.MediaType)
	}
	if size := manifest.Config.Size; size <= 0 || size > maxConfig {
		return fmt.Errorf("configuration of %d bytes: at most %d", size, maxConfig)
	}
	if n := len(manifest.Layers); n > i.cfg.Layers {
		return fmt.Errorf("%d layers: at most %d", n, i.cfg.Layers)
	}
	var total int64
	for n, layer := range manifest.Layers {
		// The bound on one keeps the sum from overflowing.
		if layer.Size < 0 || layer.Size > i.cfg.Bytes {
			return fmt.Errorf("layer %d of %d bytes: at most %d", n+1, layer.Size, i.cfg.Bytes)
		}
		if !usable(layer.Digest) {
			return fmt.Errorf("layer %d has the digest %.100q: want one of sha256", n+1, layer.Digest)
		}
		if len(layer.URLs) > 0 || !layer.MediaType.IsDistributable() {
			return fmt.Errorf("layer %d is said to be elsewhere: only the server's own are fetched", n+1)
		}
		total += layer.Size
	}
	if total > i.cfg.Bytes {
		return fmt.Errorf("layers of %d bytes together: at most %d", total, i.cfg.Bytes)
	}
	return checkConfig(img, len(manifest.Layers))
}

func checkConfig(img v1.Image, layers int) error {
	config, err := img.ConfigFile()
	if err != nil {
		return fmt.Errorf("read the configuration: %w", err)
	}
	if n := len(config.RootFS.DiffIDs); n != layers {
		return fmt.Errorf("the configuration has %d layers, the manifest %d", n, layers)
	}
	// Old builders leave the platform out.
	if config.Architecture != "" && (config.OS != "linux" || config.Architecture != runtime.GOARCH) {
		return fmt.Errorf("the image is for %s/%s, this sensor is linux/%s", config.OS, config.Architecture, runtime.GOARCH)
	}
	return nil
}

// errRefused is the error for what the registry asks for and does not get.
var errRefused = errors.New("refused")

// onlyRegistry keeps the client with the registry, whatever that answers: no
// redirect, no token service elsewhere, no plain HTTP (which the client takes
// for names such as localhost).
type onlyRegistry struct {
	host string
	next http.RoundTripper
}

func (o onlyRegistry) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Host != o.host {
		return nil, fmt.Errorf("%w to ask %.100q for a part of the image", errRefused, req.URL.Host)
	}
	if req.Method != http.MethodGet && req.Method != http.MethodHead {
		return nil, fmt.Errorf("%w to %s to the registry", errRefused, req.Method)
	}
	secure := req.Clone(req.Context())
	secure.URL.Scheme = "https"
	resp, err := o.next.RoundTrip(secure)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 300 && resp.StatusCode < 400 {
		return nil, errors.Join(fmt.Errorf("%w to follow a redirect (status %d)", errRefused, resp.StatusCode), resp.Body.Close())
	}
	return resp, nil
}

// bounded bounds what is read into memory.
type bounded struct{ next http.RoundTripper }

func (b bounded) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := b.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	resp.Body = &boundedBody{ReadCloser: resp.Body, left: maxManifest}
	return resp, nil
}

// boundedBody ends with an error where http.MaxBytesReader would, too, but that
// one speaks of requests.
type boundedBody struct {
	io.ReadCloser
	left int64
}

func (b *boundedBody) Read(buf []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("answer of more than %d bytes", maxManifest)
	}
	n, err := b.ReadCloser.Read(buf[:min(int64(len(buf)), b.left)])
	b.left -= int64(n)
	return n, err
}

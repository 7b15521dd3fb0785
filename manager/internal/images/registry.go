package images

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// maxConfig is the largest configuration of an image, in bytes. Those of
// existing services have some ten thousand. The client itself limits manifests
// to a few megabytes.
const maxConfig = 1 << 20

// resolve asks the registry for the image, and checks what it says about it.
// Layers are not fetched yet.
func (i *Images) resolve(ctx context.Context, registry string, r ref) (v1.Image, v1.Hash, error) {
	tag, err := name.NewTag(registry+"/"+r.uri, name.StrictValidation)
	if err != nil {
		return nil, v1.Hash{}, err
	}
	img, err := remote.Image(tag,
		remote.WithContext(ctx),
		remote.WithTransport(onlyRegistry{host: registry, next: i.cfg.Transport}),
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
	if digest.Algorithm != "sha256" {
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

// onlyRegistry keeps the client with the registry, whatever that answers: no
// redirect, no token service elsewhere, no plain HTTP (which the client takes
// for names such as localhost).
type onlyRegistry struct {
	host string
	next http.RoundTripper
}

func (o onlyRegistry) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Host != o.host {
		return nil, fmt.Errorf("refused to ask %.100q for a part of the image", req.URL.Host)
	}
	if req.Method != http.MethodGet && req.Method != http.MethodHead {
		return nil, fmt.Errorf("refused to %s to the registry", req.Method)
	}
	secure := req.Clone(req.Context())
	secure.URL.Scheme = "https"
	resp, err := o.next.RoundTrip(secure)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 300 && resp.StatusCode < 400 {
		return nil, errors.Join(fmt.Errorf("refused to follow a redirect (status %d)", resp.StatusCode), resp.Body.Close())
	}
	return resp, nil
}

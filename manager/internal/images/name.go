package images

import (
	"fmt"
	"strings"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// The names that images bear in the engine start so.
const (
	services  = "services.invalid/"
	manifests = "manifests.invalid/sha256:"
	programs  = "programs.invalid/"
	loads     = "loads.invalid/sha256:"
)

// maxName leaves room for the domain: Docker's names have 255 characters.
const maxName = 200

// ref is a service image as the server names it, checked.
type ref struct{ uri string }

// parse checks "repo:tag" by Docker's grammar, so that both the registry's
// client and the engine take it.
func parse(uri string) (ref, error) {
	if len(uri) > maxName {
		return ref{}, fmt.Errorf("image name of %d characters: at most %d", len(uri), maxName)
	}
	r := ref{uri: uri}
	named, err := reference.Parse(r.local())
	if err != nil {
		return ref{}, fmt.Errorf("image name %q: %w", uri, err)
	}
	tagged, ok := named.(reference.NamedTagged)
	if _, digested := named.(reference.Digested); !ok || digested {
		return ref{}, fmt.Errorf("image name %q: want repository:tag", uri)
	}
	if got := tagged.Name() + ":" + tagged.Tag(); got != r.local() || !strings.HasPrefix(got, services) {
		return ref{}, fmt.Errorf("image name %q: it is read as %q", uri, got)
	}
	return r, nil
}

// local is the image's name in the engine.
func (r ref) local() string { return services + r.uri }

// repository is the name without its tag.
func (r ref) repository() string { return r.uri[:strings.LastIndexByte(r.uri, ':')] }

// manifestTag is the name by which an image is known whose manifest has the
// digest.
func manifestTag(digest v1.Hash) string { return manifests + digest.Hex }

// digestOf returns the manifest's digest that a name of the image tells.
func digestOf(tags []string) string {
	for _, tag := range tags {
		if hex, ok := strings.CutPrefix(tag, manifests); ok {
			return "sha256:" + hex
		}
	}
	return ""
}

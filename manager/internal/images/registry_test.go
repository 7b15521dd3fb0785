package images

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// testRegistry is the server's registry, with TLS, and what was asked of it.
type testRegistry struct {
	*httptest.Server
	mu       sync.Mutex
	requests []string
	// intercept, when set, may answer in the registry's place.
	intercept func(w http.ResponseWriter, r *http.Request) bool
}

func newRegistry(t *testing.T) *testRegistry {
	t.Helper()
	reg := &testRegistry{}
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	reg.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reg.mu.Lock()
		reg.requests = append(reg.requests, r.Method+" "+r.URL.Path)
		reg.mu.Unlock()
		if reg.intercept == nil || !reg.intercept(w, r) {
			inner.ServeHTTP(w, r)
		}
	}))
	reg.Config.ErrorLog = log.New(io.Discard, "", 0)
	t.Cleanup(reg.Close)
	return reg
}

func (r *testRegistry) host() string { return strings.TrimPrefix(r.URL, "https://") }

func (r *testRegistry) push(t *testing.T, uri string, img v1.Image) {
	t.Helper()
	tag, err := name.NewTag(r.host() + "/" + uri)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(tag, img, remote.WithTransport(r.Client().Transport)); err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests = nil
}

// blobs returns how many layers and configurations were asked for.
func (r *testRegistry) blobs() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, request := range r.requests {
		if strings.HasPrefix(request, "GET ") && strings.Contains(request, "/blobs/") {
			n++
		}
	}
	return n
}

package images

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"go.uber.org/zap/zaptest"
)

func testImages(t *testing.T, reg *testRegistry, engine Engine) *Images {
	t.Helper()
	return newImages(t, Config{Transport: reg.Client().Transport, Registry: reg.host}, engine)
}

// newImages fills in what a test does not say.
func newImages(t *testing.T, cfg Config, engine Engine) *Images {
	t.Helper()
	if cfg.Cache == "" {
		cfg.Cache = t.TempDir()
	}
	if cfg.Floor == 0 {
		cfg.Floor = 1
	}
	images, err := New(cfg, engine, zaptest.NewLogger(t))
	if err != nil {
		t.Fatal(err)
	}
	return images
}

// testImage has the layers of base, and some of its own.
func testImage(t *testing.T, base v1.Image, layers ...v1.Layer) v1.Image {
	t.Helper()
	img, err := mutate.AppendLayers(base, layers...)
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	return img
}

func randomLayer(t *testing.T) v1.Layer {
	t.Helper()
	layer, err := random.Layer(2000, types.DockerLayer)
	if err != nil {
		t.Fatal(err)
	}
	return layer
}

func TestEnsureFetchesOnce(t *testing.T) {
	reg, engine := newRegistry(t), newFakeEngine()
	img := testImage(t, empty.Image, randomLayer(t), randomLayer(t))
	reg.push(t, "honeysens/cowrie:1.0", img)
	images := testImages(t, reg, engine)

	var done, total int64
	id, digest, err := images.Ensure(t.Context(), "honeysens/cowrie:1.0", func(d, all int64) { done, total = d, all })
	if err != nil {
		t.Fatal(err)
	}
	wantDigest, _ := img.Digest()
	if id != engine.images["services.invalid/honeysens/cowrie:1.0"].ID || digest != wantDigest.String() {
		t.Errorf("got id %s, digest %s", id, digest)
	}
	if done == 0 || done != total {
		t.Errorf("progress ends at %d of %d", done, total)
	}
	if _, _, err := images.Ensure(t.Context(), "honeysens/cowrie:1.0", nil); err != nil {
		t.Fatal(err)
	}
	if len(engine.loads) != 1 {
		t.Errorf("%d loads, want 1", len(engine.loads))
	}
}

func TestEnsureLeavesOutPresentLayers(t *testing.T) {
	reg, engine := newRegistry(t), newFakeEngine()
	base := testImage(t, empty.Image, randomLayer(t), randomLayer(t))
	reg.push(t, "cowrie:1", base)
	images := testImages(t, reg, engine)
	if _, _, err := images.Ensure(t.Context(), "cowrie:1", nil); err != nil {
		t.Fatal(err)
	}
	reg.push(t, "cowrie:2", testImage(t, base, randomLayer(t)))
	if _, _, err := images.Ensure(t.Context(), "cowrie:2", nil); err != nil {
		t.Fatal(err)
	}
	got := engine.loads[1]
	if diff := cmp.Diff([]string{"layer1", "layer2", "layer3"}, got.layers); diff != "" {
		t.Error(diff)
	}
	if _, there := got.files["layer3"]; !there || len(got.files) != 3 {
		t.Errorf("archive holds %v, want the third layer alone", got.files)
	}
	if n := reg.blobs(); n != 2 {
		t.Errorf("%d blobs fetched, want the configuration and one layer", n)
	}
}

func TestEnsureHandsOverAllWhenTheEngineWantsThem(t *testing.T) {
	reg, engine := newRegistry(t), newFakeEngine()
	base := testImage(t, empty.Image, randomLayer(t))
	reg.push(t, "a:1", base)
	images := testImages(t, reg, engine)
	if _, _, err := images.Ensure(t.Context(), "a:1", nil); err != nil {
		t.Fatal(err)
	}
	reg.push(t, "a:2", testImage(t, base, randomLayer(t)))
	engine.answer = `{"errorDetail":{"message":"no such layer"},"error":"no such layer"}`
	_, _, err := images.Ensure(t.Context(), "a:2", nil)
	if err == nil || !strings.Contains(err.Error(), "no such layer") {
		t.Errorf("got %v, want the engine's error", err)
	}
	if n := len(engine.loads); n != 3 || len(engine.loads[2].files) != 4 {
		t.Errorf("got %d loads, the last with %v: want a third with both layers", n, engine.loads[n-1].files)
	}
}

func TestEnsureTakesTheNewImageOfAnOldName(t *testing.T) {
	reg, engine := newRegistry(t), newFakeEngine()
	images := testImages(t, reg, engine)
	reg.push(t, "a:1", testImage(t, empty.Image, randomLayer(t)))
	first, _, err := images.Ensure(t.Context(), "a:1", nil)
	if err != nil {
		t.Fatal(err)
	}
	reg.push(t, "a:1", testImage(t, empty.Image, randomLayer(t)))
	second, _, err := images.Ensure(t.Context(), "a:1", nil)
	if err != nil {
		t.Fatal(err)
	}
	if first == second {
		t.Error("the image is still the old one")
	}
	if err := images.Prune(t.Context(), []string{"a:1"}); err != nil {
		t.Fatal(err)
	}
	if engine.images[first] != nil || engine.images[second] == nil {
		t.Errorf("after pruning there are %v", engine.names())
	}
}

func TestEnsureUsesThePresentImageWithoutServer(t *testing.T) {
	reg, engine := newRegistry(t), newFakeEngine()
	reg.push(t, "a:1", testImage(t, empty.Image, randomLayer(t)))
	images := testImages(t, reg, engine)
	want, _, err := images.Ensure(t.Context(), "a:1", nil)
	if err != nil {
		t.Fatal(err)
	}
	reg.Close()
	got, _, err := images.Ensure(t.Context(), "a:1", nil)
	if err != nil || got != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
	if _, _, err = images.Ensure(t.Context(), "b:1", nil); err == nil || !strings.Contains(err.Error(), "image b:1 cannot be fetched from "+reg.host()) {
		t.Errorf("got %v, want the image and the server's address", err)
	}
	if _, _, err := images.Present(t.Context(), "b:1"); !errors.Is(err, ErrAbsent) {
		t.Errorf("got %v, want ErrAbsent", err)
	}
}

func TestEnsureRefuses(t *testing.T) {
	elsewhere := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("a request went elsewhere")
	}))
	defer elsewhere.Close()
	redirect := func(part string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, part) {
				return false
			}
			http.Redirect(w, r, elsewhere.URL+r.URL.Path, http.StatusTemporaryRedirect)
			return true
		}
	}
	good := func(t *testing.T) v1.Image { return testImage(t, empty.Image, randomLayer(t), randomLayer(t)) }
	cases := map[string]struct {
		image     func(t *testing.T) v1.Image
		limits    Limits
		intercept func(http.ResponseWriter, *http.Request) bool
		want      string
	}{
		"absent": {want: "the server does not have it"},
		"redirected manifest": {
			image: good, intercept: redirect("/manifests/"), want: "refused to follow a redirect",
		},
		"redirected layer": {
			image: good, intercept: redirect("/blobs/"), want: "refused to follow a redirect",
		},
		"token service elsewhere": {
			image: good, want: "refused to ask",
			intercept: func(w http.ResponseWriter, r *http.Request) bool {
				w.Header().Set("WWW-Authenticate", `Bearer realm="https://elsewhere.example/token",service="x"`)
				w.WriteHeader(http.StatusUnauthorized)
				return true
			},
		},
		"other machine": {
			want: "this sensor is linux/" + runtime.GOARCH,
			image: func(t *testing.T) v1.Image {
				img := good(t)
				config, err := img.ConfigFile()
				if err != nil {
					t.Fatal(err)
				}
				config = config.DeepCopy()
				config.Architecture = "mips"
				if img, err = mutate.ConfigFile(img, config); err != nil {
					t.Fatal(err)
				}
				return img
			},
		},
		"layers":  {image: good, limits: Limits{Layers: 1}, want: "2 layers: at most 1"},
		"bytes":   {image: good, limits: Limits{Bytes: 3000}, want: "at most 3000"},
		"foreign": {image: foreignImage, want: "only the server's own"},
		"bomb": {
			image: func(t *testing.T) v1.Image { return testImage(t, empty.Image, bomb(t)) }, limits: Limits{Unpacked: 1 << 20},
			want: "it unpacks to more than",
		},
		"huge manifest":  {image: good, intercept: endless("/manifests/"), want: "bytes"},
		"huge blob":      {image: good, intercept: endless("/blobs/"), want: "verifying"},
		"no manifest":    {image: good, intercept: says("/manifests/", "<html>"), want: "manifest"},
		"other manifest": {image: good, intercept: says("/manifests/", `{"schemaVersion":1,"fsLayers":[]}`), want: "want an image"},
		"other packing": {
			image: func(t *testing.T) v1.Image {
				return testImage(t, empty.Image, static.NewLayer([]byte("\x28\xb5\x2f\xfd zstd"), types.DockerLayer))
			},
			want: "neither a tar archive",
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			reg, engine := newRegistry(t), newFakeEngine()
			if c.image != nil {
				reg.push(t, "a:1", c.image(t))
			}
			reg.intercept = c.intercept
			images := newImages(t, Config{Transport: reg.Client().Transport, Registry: reg.host, Limits: c.limits}, engine)
			_, _, err := images.Ensure(t.Context(), "a:1", nil)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if len(engine.images) > 0 {
				t.Errorf("the engine has %v", engine.names())
			}
		})
	}
}

func TestEnsureRefusesAChangedLayer(t *testing.T) {
	reg, engine := newRegistry(t), newFakeEngine()
	layer := randomLayer(t)
	reg.push(t, "a:1", testImage(t, empty.Image, layer))
	digest, err := layer.Digest()
	if err != nil {
		t.Fatal(err)
	}
	content, err := layer.Compressed()
	if err != nil {
		t.Fatal(err)
	}
	changed, err := io.ReadAll(content)
	if err != nil {
		t.Fatal(err)
	}
	changed[len(changed)-1] ^= 1
	reg.intercept = func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, digest.String()) {
			return false
		}
		_, _ = w.Write(changed)
		return true
	}
	_, _, err = testImages(t, reg, engine).Ensure(t.Context(), "a:1", nil)
	if err == nil || len(engine.images) > 0 {
		t.Errorf("got %v, and the engine has %v", err, engine.names())
	}
	if err != nil && !strings.Contains(err.Error(), "the registry sends another layer") {
		t.Errorf("got %v, want one that tells of the change", err)
	}
}

// endless answers what is about a part with zeros that do not end by themselves.
func endless(part string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, part) {
			return false
		}
		w.Header().Set("Content-Type", string(types.DockerManifestSchema2))
		for block := make([]byte, 64<<10); r.Context().Err() == nil; {
			if _, err := w.Write(block); err != nil {
				return true
			}
		}
		return true
	}
}

// says answers what is about a part with a text.
func says(part, text string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, part) {
			return false
		}
		w.Header().Set("Content-Type", string(types.DockerManifestSchema2))
		_, _ = io.WriteString(w, text)
		return true
	}
}

// bomb is a small layer that unpacks to 16 MiB.
func bomb(t *testing.T) v1.Layer {
	t.Helper()
	var packed bytes.Buffer
	out := gzip.NewWriter(&packed)
	if _, err := out.Write(make([]byte, 16<<20)); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	return static.NewLayer(packed.Bytes(), types.DockerLayer)
}

func foreignImage(t *testing.T) v1.Image {
	t.Helper()
	img, err := mutate.Append(testImage(t, empty.Image), mutate.Addendum{
		Layer: randomLayer(t), URLs: []string{"https://elsewhere.example/layer"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestNames(t *testing.T) {
	cases := map[string]bool{
		"cowrie:1": true, "honeysens/cowrie:2.9.0": true, "a/b/c:x-1_2.3": true, "recon:" + strings.Repeat("a", 64): true,
		"": false, "cowrie": false, ":1": false, "cowrie:": false, "Cowrie:1": false, "a..b:1": false, "../a:1": false, "/a:1": false,
		"a b:1": false, "a:1\n": false, "a:1:2": false, "a@sha256:" + strings.Repeat("a", 64): false,
		"a:1@sha256:" + strings.Repeat("a", 64): false, "a//b:1": false, "a:" + strings.Repeat("1", 129): false,
		strings.Repeat("a", 250) + ":1": false,
	}
	for uri, want := range cases {
		if _, err := parse(uri); (err == nil) != want {
			t.Errorf("%q: got %v", uri, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, uri := range []string{"cowrie:1", "honeysens/cowrie:2.9.0", "a@b:1", "../x:1", "x:1@sha256:00"} {
		f.Add(uri)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		r, err := parse(uri)
		if err != nil {
			return
		}
		tag, err := name.NewTag("server.example:443/"+r.uri, name.StrictValidation)
		if err != nil {
			t.Fatalf("the registry's client does not take %q: %v", uri, err)
		}
		if tag.RegistryStr() != "server.example:443" {
			t.Fatalf("%q leads to %s", uri, tag.RegistryStr())
		}
	})
}

// TestEnsureFlushes: an image that is there is taken for whole, so its files have to
// be on the disk.
func TestEnsureFlushes(t *testing.T) {
	reg, engine := newRegistry(t), newFakeEngine()
	reg.push(t, "cowrie:1", testImage(t, empty.Image, randomLayer(t)))
	flushed := 0
	images := newImages(t, Config{Transport: reg.Client().Transport, Registry: reg.host, Flush: func() error {
		flushed = len(engine.loads)
		return nil
	}}, engine)
	for range 2 {
		if _, _, err := images.Ensure(t.Context(), "cowrie:1", nil); err != nil {
			t.Fatal(err)
		}
	}
	if flushed != 1 {
		t.Errorf("flushed after %d loads, want 1", flushed)
	}
}

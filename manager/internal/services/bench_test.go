package services

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"honeysens.org/dockersensor/manager/internal/images"
	"honeysens.org/dockersensor/shared/enginetest"
	"honeysens.org/dockersensor/shared/nettest"
)

// patience is how long a condition may take on a busy machine. The longest, a third
// end for writing too fast, takes 40 s on a machine without other work.
const patience = 3 * time.Minute

// bench is a real engine and a real registry, with a helper that says yes to
// everything.
type bench struct {
	*enginetest.Engine
	t      testing.TB
	images *images.Images
	store  string
	// push offers the test's program as an image, with its arguments.
	push func(tag string, args ...string)
	// pushProgram does so with another program.
	pushProgram func(path, tag string, args ...string)
	log         *zap.Logger

	// services is what runs now; end ends it.
	services *Services
	end      func()
}

func newBench(t testing.TB) *bench {
	t.Helper()
	nettest.Need(t, "cc", "go", "mke2fs")
	dir := t.TempDir()
	runtime := filepath.Join(dir, "runtime")
	b := &bench{t: t, store: filepath.Join(t.TempDir(), "services.json"), log: zaptest.NewLogger(t)}
	b.command("go", "build", "-o", runtime, "honeysens.org/dockersensor/packaging/image/runtime")
	b.Engine = enginetest.Start(t, "--add-runtime=bounded="+runtime, "--default-runtime=bounded")
	server := httptest.NewTLSServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "https://")
	pause, honeypot := filepath.Join(dir, "pause"), filepath.Join(dir, "honeypot")
	b.command("../../../packaging/image/pause/build.sh", pause)
	b.command("go", "build", "-o", honeypot, "./testdata/honeypot")
	b.pushProgram = func(path, tag string, args ...string) {
		t.Helper()
		to, err := name.NewTag(host + "/" + tag)
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.Write(to, programImage(t, path, args...), remote.WithTransport(server.Client().Transport)); err != nil {
			t.Fatal(err)
		}
	}
	b.push = func(tag string, args ...string) {
		t.Helper()
		b.pushProgram(honeypot, tag, args...)
	}
	b.push("honeypot:1")
	var err error
	b.images, err = images.New(images.Config{
		Transport: server.Client().Transport, Registry: func() string { return host }, Pause: pause,
		Cache: filepath.Join(dir, "images"),
	}, b.Client, b.log)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bench) command(name string, args ...string) {
	b.t.Helper()
	cmd := exec.CommandContext(b.t.Context(), name, args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		b.t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

// programImage holds one program and nothing else, and starts it with these
// arguments.
func programImage(t testing.TB, path string, args ...string) v1.Image {
	t.Helper()
	program, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var layer bytes.Buffer
	out := tar.NewWriter(&layer)
	if err := out.WriteHeader(&tar.Header{Name: "honeypot", Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(program))}); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Write(program); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, static.NewLayer(layer.Bytes(), types.DockerUncompressedLayer))
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Config.Entrypoint = "linux", runtime.GOARCH, append([]string{"/honeypot"}, args...)
	if slices.Contains(args, "read-only") {
		config.Config.Labels = map[string]string{labelReadOnly: "true", labelRole: "sandbox", labelService: "1"}
	}
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	return img
}

// begin starts services as a start of the manager does.
func (b *bench) begin() {
	b.t.Helper()
	cfg := Config{Store: b.store, Interface: "eth0", CollectorPort: 5556, Limits: Limits{Memory: 64 << 20, PIDs: 50, Disk: 16 << 20, WriteRate: 2 << 20}}
	b.services = New(cfg, NewDocker(b.Client, b.log), b.images, newWorld(), b.log)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.services.Run(ctx)
	}()
	b.end = func() {
		cancel()
		<-done
	}
}

// eventually waits until the condition holds.
func (b *bench) eventually(what string, holds func() bool) {
	b.t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			b.t.Fatalf("never: %s; services are %+v", what, b.services.States())
		}
	}
}

// running waits until the service runs and returns its two containers.
func (b *bench) running(id string) (sandbox, honeypot container.InspectResponse) {
	b.t.Helper()
	b.eventually("service "+id+" runs", func() bool { return b.state(id).Status == Running && b.state(id).ContainerID != "" })
	return b.inspect("s" + id + ".net"), b.inspect("s" + id)
}

// state returns that of the service, or one of a service that failed.
func (b *bench) state(id string) State {
	for _, state := range b.services.States() {
		if state.ID == id {
			return state
		}
	}
	return State{Status: Failed}
}

func (b *bench) inspect(name string) container.InspectResponse {
	b.t.Helper()
	details, err := b.Client.ContainerInspect(b.t.Context(), name)
	if err != nil {
		b.t.Fatal(err)
	}
	return details
}

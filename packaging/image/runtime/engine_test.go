package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/pkg/stdcopy"
	"github.com/docker/go-units"

	"honeysens.org/dockersensor/shared/enginetest"
	"honeysens.org/dockersensor/shared/nettest"
)

// limit is what the honeypots of the tests may write, in bytes.
const limit = 16 << 20

// bench is an engine with the runtime, and an image.
type bench struct {
	*enginetest.Engine
	t *testing.T
}

func newBench(t *testing.T) *bench {
	t.Helper()
	nettest.Need(t, "go", "mke2fs")
	dir := t.TempDir()
	for program, source := range map[string]string{"runtime": ".", "writer": "./testdata/writer"} {
		build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(dir, program), source)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	b := &bench{t: t, Engine: enginetest.Start(t, "--add-runtime=bounded="+filepath.Join(dir, "runtime"), "--default-runtime=bounded")}
	b.load(filepath.Join(dir, "writer"))
	return b
}

// load makes the image: the program, a directory of another user's, a volume.
func (b *bench) load(program string) {
	b.t.Helper()
	text, err := os.ReadFile(program)
	b.must(err)
	var root bytes.Buffer
	out := tar.NewWriter(&root)
	for _, h := range []tar.Header{
		{Name: "writer", Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(text))},
		{Name: "volume/", Typeflag: tar.TypeDir, Mode: 0o750, Uid: 7},
		{Name: "volume/there", Typeflag: tar.TypeReg, Mode: 0o600, Size: 1},
	} {
		b.must(out.WriteHeader(&h))
		_, err := out.Write(text[:h.Size])
		b.must(err)
	}
	b.must(out.Close())
	stream, err := b.Client.ImageImport(b.t.Context(), image.ImportSource{Source: &root, SourceName: "-"}, "writer:1", image.ImportOptions{
		Changes: []string{"VOLUME /volume", "WORKDIR /data", `ENTRYPOINT ["/writer"]`},
	})
	b.must(err)
	_, err = io.Copy(io.Discard, stream)
	b.must(err)
	b.must(stream.Close())
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// create makes a container that is bounded, with these arguments.
func (b *bench) create(readOnly bool, args ...string) string {
	b.t.Helper()
	host := &container.HostConfig{NetworkMode: "none", ReadonlyRootfs: readOnly}
	host.Ulimits = []*units.Ulimit{{Name: "fsize", Soft: limit, Hard: limit}}
	c, err := b.Client.ContainerCreate(b.t.Context(), &container.Config{Image: "writer:1", Cmd: args}, host, nil, nil, "")
	b.must(err)
	return c.ID
}

// run starts a container, waits for its end and returns what it printed since.
func (b *bench) run(id string) string {
	b.t.Helper()
	since := time.Now()
	b.must(b.Client.ContainerStart(b.t.Context(), id, container.StartOptions{}))
	ended, failed := b.Client.ContainerWait(b.t.Context(), id, container.WaitConditionNotRunning)
	select {
	case <-ended:
	case err := <-failed:
		b.t.Fatal(err)
	}
	logs, err := b.Client.ContainerLogs(b.t.Context(), id, container.LogsOptions{ShowStdout: true, ShowStderr: true, Since: since.Format(time.RFC3339Nano)})
	b.must(err)
	defer logs.Close()
	var text bytes.Buffer
	_, err = stdcopy.StdCopy(&text, &text, logs)
	b.must(err)
	return text.String()
}

func (b *bench) remove(id string) {
	b.t.Helper()
	b.must(b.Client.ContainerRemove(b.t.Context(), id, container.RemoveOptions{Force: true, RemoveVolumes: true}))
}

// image is where the file system of the container lies.
func (b *bench) image(id string) string { return filepath.Join(b.Data, "containers", id, "files.img") }

// blocks is what a file takes of the disk, in bytes.
func (b *bench) blocks(path string) int64 {
	b.t.Helper()
	var stat syscall.Stat_t
	b.must(syscall.Stat(path, &stat))
	return stat.Blocks * 512
}

// devices returns the loop devices with files of the engine.
func (b *bench) devices() string {
	b.t.Helper()
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	b.must(err)
	var found []string
	for _, file := range files {
		if text, err := os.ReadFile(file); err == nil && strings.HasPrefix(string(text), b.Data) {
			found = append(found, strings.TrimSpace(string(text)))
		}
	}
	return strings.Join(found, " ")
}

func (b *bench) eventually(what string, holds func() bool) {
	b.t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			b.t.Fatalf("never: %s", what)
		}
	}
}

// TestEngineFilesAreBounded has honeypots of a real engine write what they can.
func TestEngineFilesAreBounded(t *testing.T) {
	b := newBench(t)
	for _, test := range []struct {
		name string
		args []string
	}{
		{"files", []string{"fill", "/"}},
		{"files without a name", []string{"unlinked", "/"}},
		{"files in a volume", []string{"fill", "/volume"}},
		{"files in the working directory", []string{"fill", "/data"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			b.t = t
			id := b.create(false, test.args...)
			defer b.remove(id)
			var wrote int64
			var full bool
			if _, err := fmt.Sscanf(b.run(id), test.args[0]+" %d %t", &wrote, &full); err != nil {
				t.Fatal(err)
			}
			t.Logf("%d of %d bytes, %d on the disk", wrote, limit, b.blocks(b.image(id)))
			if !full || wrote < limit || wrote > imageSize(limit) || b.blocks(b.image(id)) > imageSize(limit)+1<<20 {
				t.Error("that is not the bound")
			}
		})
	}
	t.Run("empty files", func(t *testing.T) {
		b.t = t
		id := b.create(false, "inodes", "/")
		defer b.remove(id)
		var made int64
		var full bool
		if _, err := fmt.Sscanf(b.run(id), "inodes %d %t", &made, &full); err != nil {
			t.Fatal(err)
		}
		if !full || made > imageSize(limit)/inodeRatio {
			t.Errorf("%d files, refused for lack of space: %v", made, full)
		}
		err := b.Client.ContainerStart(t.Context(), id, container.StartOptions{})
		if err == nil || !strings.Contains(err.Error(), "it is full (SERVICE_DISK)") {
			t.Errorf("one without a file to spare is started again with %v", err)
		}
	})
	t.Run("no file", func(t *testing.T) {
		b.t = t
		id := b.create(true, "keep", "/file", "keep", "/volume/file")
		defer b.remove(id)
		if out := b.run(id) + b.run(id); strings.Count(out, "no such file") != 4 {
			t.Errorf("a read-only honeypot says %q", out)
		}
		if _, err := os.Stat(b.image(id)); err == nil {
			t.Error("it has a file system of its own")
		}
	})
}

// TestEngineFilesStay: what a honeypot wrote is there at its next start, whatever
// ended it, and is gone with it.
func TestEngineFilesStay(t *testing.T) {
	b := newBench(t)
	id := b.create(false, "keep", "/data/file", "keep", "/volume/there", "wait")
	says := func() string {
		b.t.Helper()
		since := time.Now()
		b.must(b.Client.ContainerStart(t.Context(), id, container.StartOptions{}))
		var text bytes.Buffer
		b.eventually("it has started", func() bool {
			logs, err := b.Client.ContainerLogs(t.Context(), id, container.LogsOptions{ShowStdout: true, Since: since.Format(time.RFC3339Nano)})
			b.must(err)
			defer logs.Close()
			text.Reset()
			_, err = stdcopy.StdCopy(&text, &text, logs)
			return err == nil && strings.Count(text.String(), "\n") == 2
		})
		return text.String()
	}
	if out := says(); !strings.Contains(out, "no such file") || !strings.Contains(out, `keep "\x7f"`) {
		t.Errorf("at first it says %q", out)
	}
	details, _, err := b.Client.ContainerInspectWithRaw(t.Context(), id, true)
	b.must(err)
	// A letter, and the program's first one with another.
	if details.SizeRw == nil || *details.SizeRw != 3 {
		t.Errorf("the engine counts %+v, want 3 bytes", details.ContainerJSONBase)
	}
	for n, end := range []func(){
		func() { b.must(b.Client.ContainerKill(t.Context(), id, "KILL")) },
		func() { b.Stop(); b.Run() },
		func() { b.KillAll(); b.Run() },
	} {
		end()
		if out, want := says(), fmt.Sprintf(`keep "%s"`, strings.Repeat("x", n+1)); !strings.Contains(out, want) {
			t.Errorf("after end %d it says %q, want %s", n, out, want)
		}
	}

	b.must(b.Client.ContainerKill(t.Context(), id, "KILL"))
	b.eventually("its device is gone", func() bool { return b.devices() == "" })
	for name, damage := range map[string]func(string) error{
		"empty":      func(path string) error { return os.Truncate(path, 0) },
		"other bits": func(path string) error { return overwrite(path, 1024+0x38, []byte{0, 0}) },
	} {
		b.must(damage(b.image(id)))
		if out := says(); !strings.Contains(out, "no such file") {
			t.Errorf("%s: it says %q", name, out)
		}
		b.must(b.Client.ContainerKill(t.Context(), id, "KILL"))
		b.eventually("its device is gone", func() bool { return b.devices() == "" })
	}
	b.remove(id)
	b.eventually("its device is gone", func() bool { return b.devices() == "" })
	left, err := filepath.Glob(filepath.Join(b.Data, "containers", "*"))
	b.must(err)
	layers, err := filepath.Glob(filepath.Join(b.Data, "overlay2", "*", "merged"))
	b.must(err)
	if len(left)+len(layers) > 0 {
		t.Errorf("left behind: %v %v", left, layers)
	}
}

func overwrite(path string, at int64, with []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteAt(with, at)
	return errors.Join(err, file.Close())
}

// TestEngineKilledWithHoneypots: when everything is killed that could have
// unmounted anything, nothing stays mounted.
func TestEngineKilledWithHoneypots(t *testing.T) {
	b := newBench(t)
	id := b.create(false, "wait")
	b.must(b.Client.ContainerStart(t.Context(), id, container.StartOptions{}))
	if b.devices() == "" {
		t.Fatal("it has no device")
	}
	b.KillAll()
	b.eventually("no device is left", func() bool { return b.devices() == "" })
}

package archive

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// ImageConfig says what is in an image.
type ImageConfig struct {
	// Rootfs is a tar of a root file system, the lowest layer; empty for none.
	Rootfs string
	// Files go on top of it.
	Files []File
	// Architecture is as in Metadata.
	Architecture string
	Entrypoint   []string
	Env          []string
	// Labels say things about the image, such as LabelReadOnly.
	Labels map[string]string
}

// LabelReadOnly of an image, with the value "true", says that its program writes
// no file: sensors then start it with a read-only file system.
const LabelReadOnly = "org.honeysens.read-only"

// File is a file of the building machine and where it goes. Its permissions go
// with it, its owner is root.
type File struct {
	From, To string
}

// platforms are the names that servers and images have for one thing.
var platforms = map[string]v1.Platform{
	"amd64": {OS: "linux", Architecture: "amd64"},
	"arm64": {OS: "linux", Architecture: "arm64"},
	"armhf": {OS: "linux", Architecture: "arm", Variant: "v7"},
}

// NewImage makes an image without a Docker engine.
func NewImage(cfg ImageConfig) (v1.Image, error) {
	platform, ok := platforms[cfg.Architecture]
	if !ok {
		return nil, fmt.Errorf("architecture %q is not known", cfg.Architecture)
	}
	var layers []v1.Layer
	if cfg.Rootfs != "" {
		layer, err := tarball.LayerFromFile(cfg.Rootfs)
		if err != nil {
			return nil, fmt.Errorf("root file system %s: %w", cfg.Rootfs, err)
		}
		layers = append(layers, layer)
	}
	if len(cfg.Files) > 0 {
		layer, err := filesLayer(cfg.Files)
		if err != nil {
			return nil, err
		}
		layers = append(layers, layer)
	}
	image, err := mutate.AppendLayers(empty.Image, layers...)
	if err != nil {
		return nil, fmt.Errorf("append layers: %w", err)
	}
	file, err := image.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("read image configuration: %w", err)
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Variant = platform.OS, platform.Architecture, platform.Variant
	file.Created = v1.Time{Time: time.Unix(0, 0).UTC()}
	file.Config.Entrypoint, file.Config.Env, file.Config.Labels = cfg.Entrypoint, cfg.Env, cfg.Labels
	return mutate.ConfigFile(image, file)
}

// filesLayer holds the files and the directories above them.
func filesLayer(files []File) (v1.Layer, error) {
	files = slices.Clone(files)
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.To, b.To) })
	var buffer bytes.Buffer
	w := tar.NewWriter(&buffer)
	made := map[string]bool{"/": true, ".": true}
	for _, file := range files {
		if err := addDirs(w, path.Dir(path.Join("/", file.To)), made); err != nil {
			return nil, err
		}
		if err := addFile(w, file); err != nil {
			return nil, fmt.Errorf("add %s to image: %w", file.From, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("write layer: %w", err)
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(buffer.Bytes())), nil
	})
}

func addDirs(w *tar.Writer, dir string, made map[string]bool) error {
	if made[dir] {
		return nil
	}
	if err := addDirs(w, path.Dir(dir), made); err != nil {
		return err
	}
	made[dir] = true
	header := &tar.Header{Typeflag: tar.TypeDir, Name: dir[1:] + "/", Mode: 0o755, ModTime: time.Unix(0, 0)}
	if err := w.WriteHeader(header); err != nil {
		return fmt.Errorf("write layer: %w", err)
	}
	return nil
}

func addFile(w *tar.Writer, file File) error {
	in, err := os.Open(file.From)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("not a regular file: %s", info.Mode())
	}
	header := &tar.Header{
		Typeflag: tar.TypeReg, Name: path.Join("/", file.To)[1:], Size: info.Size(),
		Mode: int64(info.Mode().Perm()), ModTime: time.Unix(0, 0),
	}
	if err := w.WriteHeader(header); err != nil {
		return err
	}
	_, err = io.Copy(w, in)
	return err
}

package update

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"runtime"
	"strings"

	"golang.org/x/crypto/blake2b"
)

// Limits of an image as `docker save` writes it.
const (
	maxImageMembers = 4096
	// maxDescription bounds each of the JSON files in it, maxDescriptions all that
	// is kept of what could be one. In bytes.
	maxDescription  = 1 << 20
	maxDescriptions = 16 << 20
)

// handoverLabel is set in our image from the first revision on that waits for its
// turn.
const handoverLabel = "org.honeysens.sensor.handover"

// blobs begins the names of members that are named after their digest.
const blobs = "blobs/sha256/"

// saved is what is kept of an image archive.
type saved struct {
	files map[string][]byte
	names map[string]bool
	kept  int64
	// left is what its members may still unpack to: a file with holes is small in
	// the archive. In bytes.
	left int64
}

// image checks what the host's engine is going to load.
func (v *verifier) image(content io.Reader) error {
	hash, err := blake2b.New512(nil)
	if err != nil {
		return err
	}
	s := saved{files: map[string][]byte{}, names: map[string]bool{}, left: MaxUnpacked}
	in := io.TeeReader(content, hash)
	members := tar.NewReader(in)
	for {
		header, err := members.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read the image: %w", err)
		}
		if err := s.take(header, members); err != nil {
			return err
		}
	}
	if _, err := io.Copy(io.Discard, in); err != nil {
		return fmt.Errorf("read the image: %w", err)
	}
	v.hash = hash.Sum(nil)
	found, err := s.describe(imageFor + v.revision)
	v.found.Layers, v.found.Handover = found.Layers, found.Handover
	v.found.Unpacked = MaxUnpacked - v.left
	return err
}

// take keeps small files, and compares those that are named after their digest.
func (s *saved) take(header *tar.Header, content io.Reader) error {
	name := path.Clean(header.Name)
	if len(s.names) >= maxImageMembers {
		return fmt.Errorf("the image has more than %d members", maxImageMembers)
	}
	if s.left -= header.Size; s.left < 0 {
		return fmt.Errorf("the image unpacks to more than %d bytes", int64(MaxUnpacked))
	}
	s.names[name] = true
	if header.Typeflag != tar.TypeReg {
		return nil
	}
	digest := sha256.New()
	content = io.TeeReader(content, digest)
	if header.Size <= maxDescription && s.kept+header.Size <= maxDescriptions {
		data, err := io.ReadAll(content)
		if err != nil {
			return fmt.Errorf("read %.80q of the image: %w", name, err)
		}
		s.files[name], s.kept = data, s.kept+header.Size
	} else if _, err := io.Copy(io.Discard, content); err != nil {
		return fmt.Errorf("read %.80q of the image: %w", name, err)
	}
	if want, ok := strings.CutPrefix(name, blobs); ok && hex.EncodeToString(digest.Sum(nil)) != want {
		return fmt.Errorf("%.80q of the image has another digest", name)
	}
	return nil
}

// describe reads the manifest and the configuration of the one image.
func (s *saved) describe(want string) (Firmware, error) {
	var manifest []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := s.decode("manifest.json", &manifest); err != nil {
		return Firmware{}, err
	}
	if len(manifest) != 1 {
		return Firmware{}, fmt.Errorf("it holds %d images, want one", len(manifest))
	}
	entry := manifest[0]
	if len(entry.RepoTags) != 1 || entry.RepoTags[0] != want {
		return Firmware{}, fmt.Errorf("its image is named %.200q, want %s", entry.RepoTags, want)
	}
	for _, layer := range entry.Layers {
		if !s.names[path.Clean(layer)] {
			return Firmware{}, fmt.Errorf("layer %.80q of the image is missing", layer)
		}
	}
	return s.configuration(entry.Config, len(entry.Layers))
}

func (s *saved) configuration(name string, layers int) (Firmware, error) {
	var image struct {
		Architecture string `json:"architecture"`
		OS           string `json:"os"`
		Config       struct {
			Labels map[string]string
		} `json:"config"`
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if err := s.decode(name, &image); err != nil {
		return Firmware{}, err
	}
	if image.OS != "linux" || image.Architecture != runtime.GOARCH {
		return Firmware{}, fmt.Errorf("its image is for %.20q/%.20q, this host is linux/%s", image.OS, image.Architecture, runtime.GOARCH)
	}
	if layers == 0 || len(image.RootFS.DiffIDs) != layers {
		return Firmware{}, fmt.Errorf("its image has %d layers and describes %d", layers, len(image.RootFS.DiffIDs))
	}
	return Firmware{Layers: image.RootFS.DiffIDs, Handover: image.Config.Labels[handoverLabel] == "1"}, nil
}

func (s *saved) decode(name string, into any) error {
	data, ok := s.files[path.Clean(name)]
	if !ok {
		return fmt.Errorf("the image has no %.80q", name)
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("%.80q of the image: %w", name, err)
	}
	return nil
}

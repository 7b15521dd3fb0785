package archive

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

const (
	metadataName = "metadata.xml"
	imageName    = "service.tar"
	// maxImage bounds service.tar, in bytes.
	maxImage = 4 << 30
)

// Write writes a service archive.
func Write(w io.Writer, m Metadata, image v1.Image) error {
	if err := m.Validate(); err != nil {
		return fmt.Errorf("metadata: %w", err)
	}
	tag, err := m.tag()
	if err != nil {
		return err
	}
	zip := gzip.NewWriter(w)
	out := tar.NewWriter(zip)
	if err := writeMetadata(out, m); err != nil {
		return err
	}
	if err := writeImage(out, tag, image); err != nil {
		return err
	}
	if err := errors.Join(out.Close(), zip.Close()); err != nil {
		return fmt.Errorf("write archive: %w", err)
	}
	return nil
}

func header(name string, size int64) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: time.Unix(0, 0)}
}

func writeMetadata(out *tar.Writer, m Metadata) error {
	var text bytes.Buffer
	if err := m.encode(&text); err != nil {
		return err
	}
	if err := out.WriteHeader(header(metadataName, int64(text.Len()))); err != nil {
		return fmt.Errorf("write %s: %w", metadataName, err)
	}
	if _, err := out.Write(text.Bytes()); err != nil {
		return fmt.Errorf("write %s: %w", metadataName, err)
	}
	return nil
}

func writeImage(out *tar.Writer, tag name.Tag, image v1.Image) error {
	size, err := tarball.CalculateSize(map[name.Reference]v1.Image{tag: image})
	if err != nil {
		return fmt.Errorf("write %s: %w", imageName, err)
	}
	if err := out.WriteHeader(header(imageName, size)); err != nil {
		return fmt.Errorf("write %s: %w", imageName, err)
	}
	if err := tarball.Write(tag, image, out); err != nil {
		return fmt.Errorf("write %s: %w", imageName, err)
	}
	return nil
}

// Read reads a service archive. The image is unpacked into dir, which must stay
// as long as the image is used.
func Read(r io.Reader, dir string) (Metadata, v1.Image, error) {
	plain, err := decompress(r)
	if err != nil {
		return Metadata{}, nil, err
	}
	var m *Metadata
	imagePath := filepath.Join(dir, imageName)
	var haveImage bool
	for in := tar.NewReader(plain); ; {
		member, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return Metadata{}, nil, fmt.Errorf("service archive: %w", err)
		}
		switch {
		case member.Typeflag != tar.TypeReg:
			return Metadata{}, nil, fmt.Errorf("service archive: %.100q is not a regular file", member.Name)
		case member.Name == metadataName && m == nil:
			if m, err = readMetadata(in, member.Size); err != nil {
				return Metadata{}, nil, err
			}
		case member.Name == imageName && !haveImage:
			haveImage = true
			if err := unpack(in, member.Size, imagePath); err != nil {
				return Metadata{}, nil, err
			}
		default:
			return Metadata{}, nil, fmt.Errorf("service archive: %.100q does not belong here, or is there twice", member.Name)
		}
	}
	if m == nil || !haveImage {
		return Metadata{}, nil, fmt.Errorf("service archive: want %s and %s at top level", metadataName, imageName)
	}
	image, err := tarball.ImageFromPath(imagePath, nil)
	if err != nil {
		return Metadata{}, nil, fmt.Errorf("service archive: %s: %w", imageName, err)
	}
	return *m, image, nil
}

func decompress(r io.Reader) (io.Reader, error) {
	buffered := bufio.NewReader(r)
	magic, err := buffered.Peek(2)
	if err != nil {
		return nil, fmt.Errorf("service archive: %w", err)
	}
	if magic[0] != 0x1f || magic[1] != 0x8b {
		return buffered, nil
	}
	zip, err := gzip.NewReader(buffered)
	if err != nil {
		return nil, fmt.Errorf("service archive: %w", err)
	}
	return zip, nil
}

func readMetadata(r io.Reader, size int64) (*Metadata, error) {
	if size > maxMetadata {
		return nil, fmt.Errorf("service archive: %s has %d bytes", metadataName, size)
	}
	text, err := io.ReadAll(io.LimitReader(r, maxMetadata))
	if err != nil {
		return nil, fmt.Errorf("service archive: %w", err)
	}
	m, err := ParseMetadata(text)
	if err != nil {
		return nil, fmt.Errorf("service archive: %w", err)
	}
	return &m, nil
}

func unpack(r io.Reader, size int64, to string) error {
	if size > maxImage {
		return fmt.Errorf("service archive: %s has %d bytes", imageName, size)
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("service archive: %w", err)
	}
	_, err = io.Copy(out, r)
	if err := errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("service archive: unpack %s: %w", imageName, err)
	}
	return nil
}

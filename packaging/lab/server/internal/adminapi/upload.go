package adminapi

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"unicode/utf8"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"honeysens.org/dockersensor/packaging/lab/admin"
	"honeysens.org/dockersensor/packaging/services/archive"
)

// maxUpload bounds an archive, in bytes.
const maxUpload = 4 << 30

// maxMetadata bounds metadata.xml of a firmware, in bytes.
const maxMetadata = 1 << 20

func (a *API) services(*http.Request) (any, error) { return a.store.Services(), nil }

func (a *API) firmware(*http.Request) (any, error) { return a.store.Firmware(), nil }

func (a *API) defineService(r *http.Request) (any, error) {
	service, err := read[admin.Service](r)
	if err != nil {
		return nil, err
	}
	if service.Repository == "" {
		return nil, fmt.Errorf("%w: repository is empty", errBad)
	}
	return a.store.AddService(service)
}

// uploadService pushes the image of an archive and offers the service.
func (a *API) uploadService(r *http.Request) (any, error) {
	dir, err := a.store.TempDir()
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	m, image, err := archive.Read(io.LimitReader(r.Body, maxUpload), dir)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errBad, err)
	}
	if err := a.push(r, m.URI(), image); err != nil {
		return nil, err
	}
	return a.store.AddService(admin.Service{Label: m.Name, Repository: m.Repository, Revisions: []admin.Revision{{
		Revision: m.Revision, Architecture: m.Architecture, Raw: m.RawNetworkAccess, CatchAll: m.CatchAll,
		PortAssignment: m.PortAssignment, URI: m.URI(),
	}}})
}

func (a *API) push(r *http.Request, uri string, image v1.Image) error {
	if a.registry == "" {
		return errors.New("this server has no registry: start it with --registry")
	}
	// The registry is the lab's own and speaks plain HTTP.
	tag, err := name.NewTag(a.registry+"/"+uri, name.Insecure)
	if err != nil {
		return fmt.Errorf("%w: %w", errBad, err)
	}
	if err := remote.Write(tag, image, remote.WithContext(r.Context())); err != nil {
		return fmt.Errorf("push %s: %w", uri, err)
	}
	return nil
}

// uploadFirmware keeps an archive after the checks that the real server makes.
func (a *API) uploadFirmware(r *http.Request) (any, error) {
	dir, err := a.store.TempDir()
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path := filepath.Join(dir, "firmware")
	size, sum, err := save(path, io.LimitReader(r.Body, maxUpload))
	if err != nil {
		return nil, err
	}
	m, err := inspect(path)
	if err != nil {
		return nil, fmt.Errorf("%w: firmware archive: %w", errBad, err)
	}
	return a.store.AddFirmware(admin.Firmware{Name: m.Name, Platform: m.Platform, Revision: m.Version, Size: size, SHA256: sum}, path)
}

func save(path string, r io.Reader) (size int64, sum string, err error) {
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, "", err
	}
	hash := sha256.New()
	size, err = io.Copy(io.MultiWriter(out, hash), r)
	return size, hex.EncodeToString(hash.Sum(nil)), errors.Join(err, out.Close())
}

// firmwareMetadata is metadata.xml of a firmware. Its texts are not trimmed.
type firmwareMetadata struct {
	XMLName     xml.Name `xml:"firmware"`
	Name        string   `xml:"name"`
	Platform    string   `xml:"platform"`
	Version     string   `xml:"version"`
	Description string   `xml:"description"`
	Changelog   string   `xml:"changelog"`
}

// inspect reads a firmware archive and returns its metadata.
func inspect(path string) (firmwareMetadata, error) {
	file, err := os.Open(path)
	if err != nil {
		return firmwareMetadata{}, err
	}
	defer func() { _ = file.Close() }()
	plain, err := maybeGzip(file)
	if err != nil {
		return firmwareMetadata{}, err
	}
	var m firmwareMetadata
	var haveMetadata, haveImage bool
	for in := tar.NewReader(plain); ; {
		member, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return firmwareMetadata{}, err
		}
		switch member.Name {
		case "metadata.xml":
			haveMetadata = true
			if m, err = parseFirmware(io.LimitReader(in, maxMetadata)); err != nil {
				return firmwareMetadata{}, err
			}
		case "firmware.img":
			haveImage = true
		}
	}
	if !haveMetadata || !haveImage {
		return firmwareMetadata{}, errors.New("want members named exactly metadata.xml and firmware.img")
	}
	return m, nil
}

func parseFirmware(r io.Reader) (firmwareMetadata, error) {
	var m firmwareMetadata
	if err := xml.NewDecoder(r).Decode(&m); err != nil {
		return m, fmt.Errorf("metadata.xml: %w", err)
	}
	if m.Name == "" || m.Version == "" || utf8.RuneCountInString(m.Version) > 255 {
		return m, errors.New("metadata.xml: name or version is empty, or version is longer than 255 characters")
	}
	if m.Platform != "docker_x86" {
		return m, fmt.Errorf("metadata.xml: platform %.40q is not known", m.Platform)
	}
	return m, nil
}

func maybeGzip(r io.Reader) (io.Reader, error) {
	buffered := bufio.NewReader(r)
	magic, err := buffered.Peek(2)
	if err != nil {
		return nil, err
	}
	if magic[0] == 0x1f && magic[1] == 0x8b {
		return gzip.NewReader(buffered)
	}
	return buffered, nil
}

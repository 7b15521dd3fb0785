package update

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Limits of a firmware archive.
const (
	// MaxUnpacked bounds what it unpacks to, in bytes.
	MaxUnpacked = 8 << 30
	maxMembers  = 64
	maxMetadata = 1 << 20
)

// The platform of this sensor, and the name of its image.
const (
	platform = "docker_x86"
	imageFor = "honeysens/sensorx86:"
)

// Members of the archive that are looked at. The others are for people.
const (
	metadataMember  = "metadata.xml"
	imageMember     = "firmware.img"
	signatureMember = "firmware.img.minisig"
)

// Firmware is what was found in an archive.
type Firmware struct {
	// Layers are the DiffIDs of its image, from the bottom up.
	Layers []string `json:"layers"`
	// Unpacked is the size of the image, in bytes.
	Unpacked int64 `json:"unpacked"`
	// Handover tells that the image takes part in an update as the new sensor; one
	// that does not is started in place of the old one.
	Handover bool `json:"handover"`
	// Signed tells that it was signed by the deployment's key.
	Signed bool `json:"signed"`
}

// Verify reads a whole archive and tells what is in it and its SHA-256. Every
// error says what is wrong with the archive, for a person. With a key, which may
// be nil, it has to be signed.
func Verify(archive io.Reader, revision string, key *PublicKey) (Firmware, string, error) {
	whole := sha256.New()
	v := verifier{revision: revision, key: key, seen: map[string]bool{}}
	in := io.TeeReader(archive, whole)
	err := v.archive(in)
	if err == nil {
		// What follows the tar is a part of the digest.
		_, err = io.Copy(io.Discard, in)
	}
	if err == nil {
		err = v.judge()
	}
	return v.found, hex.EncodeToString(whole.Sum(nil)), err
}

type verifier struct {
	revision string
	key      *PublicKey
	seen     map[string]bool
	left     int64
	found    Firmware

	metadata  []byte
	signature []byte
	hash      []byte
}

func (v *verifier) archive(in io.Reader) error {
	v.left = MaxUnpacked
	return eachMember(in, func(header *tar.Header, content io.Reader) error {
		if err := v.admit(header); err != nil {
			return err
		}
		switch header.Name {
		case metadataMember:
			data, err := readSmall(content, maxMetadata)
			v.metadata = data
			return wrap(header.Name, err)
		case signatureMember:
			data, err := readSmall(content, maxSignature)
			v.signature = data
			return wrap(header.Name, err)
		case imageMember:
			return wrap(header.Name, v.image(content))
		}
		return nil
	})
}

// eachMember reads a tar, gzip or plain, to its end.
func eachMember(in io.Reader, do func(*tar.Header, io.Reader) error) error {
	buffered := bufio.NewReaderSize(in, 1<<20)
	var content io.Reader = buffered
	if start, _ := buffered.Peek(2); bytes.Equal(start, []byte{0x1f, 0x8b}) {
		unpacked, err := gzip.NewReader(buffered)
		if err != nil {
			return fmt.Errorf("unpack the archive: %w", err)
		}
		content = unpacked
	}
	members := tar.NewReader(content)
	for {
		header, err := members.Next()
		if errors.Is(err, io.EOF) {
			// The checksum of gzip comes at the end.
			_, err = io.Copy(io.Discard, io.LimitReader(content, 1<<20))
			return wrap("read the archive to its end", err)
		}
		if err != nil {
			return fmt.Errorf("read the archive: %w", err)
		}
		if err := do(header, members); err != nil {
			return err
		}
	}
}

// admit checks a member before its content is read.
func (v *verifier) admit(header *tar.Header) error {
	name := header.Name
	switch {
	case len(v.seen) >= maxMembers:
		return fmt.Errorf("the archive has more than %d members", maxMembers)
	case header.Typeflag != tar.TypeReg && header.Typeflag != tar.TypeDir:
		return fmt.Errorf("member %.80q is neither a file nor a directory", name)
	case strings.HasPrefix(name, "/") || strings.HasPrefix(name, "./") || strings.Contains(name, ".."):
		return fmt.Errorf("member %.80q: want a plain name", name)
	case v.seen[name]:
		return fmt.Errorf("member %.80q is there twice", name)
	case header.Size > v.left:
		return fmt.Errorf("the archive unpacks to more than %d bytes", int64(MaxUnpacked))
	}
	v.seen[name] = true
	v.left -= header.Size
	return nil
}

func readSmall(in io.Reader, most int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(in, most+1))
	if err == nil && int64(len(data)) > most {
		err = fmt.Errorf("it has more than %d bytes", most)
	}
	return data, err
}

// judge puts together what was read.
func (v *verifier) judge() error {
	for _, name := range []string{metadataMember, imageMember} {
		if !v.seen[name] {
			return fmt.Errorf("the archive has no %s", name)
		}
	}
	var metadata struct {
		XMLName  xml.Name `xml:"firmware"`
		Platform string   `xml:"platform"`
		Version  string   `xml:"version"`
	}
	if err := xml.Unmarshal(v.metadata, &metadata); err != nil {
		return fmt.Errorf("%s: %w", metadataMember, err)
	}
	if metadata.Platform != platform {
		return fmt.Errorf("it is for the platform %.60q, this sensor is %s", metadata.Platform, platform)
	}
	if metadata.Version != v.revision {
		return fmt.Errorf("it is revision %.60q, the server offered %q", metadata.Version, v.revision)
	}
	if v.key == nil {
		return nil
	}
	if v.signature == nil {
		return fmt.Errorf("it is not signed, and %s wants that", KeyFile)
	}
	if err := v.key.verify(v.hash, v.signature); err != nil {
		return fmt.Errorf("signature: %w", err)
	}
	v.found.Signed = true
	return nil
}

// Image leads the member with the image to do.
func Image(archive io.Reader, do func(io.Reader) error) error {
	found := false
	err := eachMember(archive, func(header *tar.Header, content io.Reader) error {
		if header.Name != imageMember || found {
			return nil
		}
		found = true
		return do(content)
	})
	if err == nil && !found {
		err = fmt.Errorf("the archive has no %s", imageMember)
	}
	return err
}

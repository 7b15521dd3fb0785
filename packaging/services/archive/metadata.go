package archive

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"regexp"

	"github.com/google/go-containerregistry/pkg/name"
)

// Metadata is the content of metadata.xml.
type Metadata struct {
	XMLName     xml.Name `xml:"service"`
	Name        string   `xml:"name"`
	Repository  string   `xml:"repository"`
	Description string   `xml:"description"`
	// Architecture is amd64, arm64 or armhf, as servers have it.
	Architecture     string `xml:"architecture"`
	Revision         string `xml:"revision"`
	RawNetworkAccess bool   `xml:"rawNetworkAccess"`
	CatchAll         bool   `xml:"catchAll"`
	// PortAssignment is JSON: the container's port to the host's, such as
	// {"2222/tcp": 22}. No server looks into it.
	PortAssignment      string `xml:"portAssignment"`
	RevisionDescription string `xml:"revisionDescription"`
}

// maxMetadata bounds metadata.xml, in bytes.
const maxMetadata = 64 << 10

// ParseMetadata reads metadata.xml and checks it.
func ParseMetadata(text []byte) (Metadata, error) {
	var m Metadata
	dec := xml.NewDecoder(bytes.NewReader(text))
	if err := dec.Decode(&m); err != nil {
		return Metadata{}, fmt.Errorf("metadata.xml: %w", err)
	}
	if err := m.Validate(); err != nil {
		return Metadata{}, fmt.Errorf("metadata.xml: %w", err)
	}
	return m, nil
}

var simple = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$`)

// Validate tells what is missing or wrong.
func (m Metadata) Validate() error {
	var wrong []error
	for _, field := range []struct{ name, value string }{
		{"architecture", m.Architecture}, {"revision", m.Revision},
	} {
		if !simple.MatchString(field.value) {
			wrong = append(wrong, fmt.Errorf("%s is %.40q: want letters, digits, dots and dashes", field.name, field.value))
		}
	}
	if m.Name == "" || len(m.Name) > 255 {
		wrong = append(wrong, errors.New("name is empty or longer than 255 bytes"))
	}
	if len(wrong) == 0 {
		if _, err := m.tag(); err != nil {
			wrong = append(wrong, err)
		}
	}
	return errors.Join(wrong...)
}

// URI is how a server names the image to its sensors: repository and tag, with
// the architecture in the tag.
func (m Metadata) URI() string {
	return m.Repository + ":" + m.Architecture + "-" + m.Revision
}

// tag is the URI as the name of the image in service.tar.
func (m Metadata) tag() (name.Tag, error) {
	tag, err := name.NewTag(m.URI(), name.WeakValidation)
	if err != nil {
		return name.Tag{}, fmt.Errorf("repository %.100q and revision make no image name: %w", m.Repository, err)
	}
	return tag, nil
}

// encode is the opposite of ParseMetadata.
func (m Metadata) encode(w io.Writer) error {
	text, err := xml.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("encode metadata.xml: %w", err)
	}
	_, err = w.Write(append([]byte(xml.Header), append(text, '\n')...))
	return err
}

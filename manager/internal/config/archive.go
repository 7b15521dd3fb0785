package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// configName is the member that holds the INI text.
const configName = "honeysens.cfg"

// maxConfig bounds the INI text; a real one has 600 bytes. Looking up keys
// takes time that grows with the square of it.
const maxConfig = 64 << 10

// Archive is a configuration archive in memory. It is not safe for concurrent
// use.
type Archive struct {
	path string
	doc  *document
	// members are the archive's files without honeysens.cfg. What nothing
	// refers to is kept: it is not ours to lose.
	members []member
}

// Open reads the archive that a sensor runs with and brings it up to date, in
// memory. The path is that of the archive, or of a directory that holds exactly
// one. The notes say in plain words what was brought up to date.
func Open(path string) (archive *Archive, notes []string, err error) {
	archive, err = Load(path)
	if err != nil {
		return nil, nil, err
	}
	return archive, archive.migrate(), nil
}

// Load reads an archive as it is, of whatever age. The path is that of the
// archive, or of a directory that holds exactly one.
func Load(path string) (*Archive, error) {
	file, err := locate(path)
	if err != nil {
		return nil, err
	}
	packed, err := readFile(file)
	if err != nil {
		return nil, fmt.Errorf("read configuration archive: %w", err)
	}
	archive, err := parse(packed)
	if err != nil {
		return nil, fmt.Errorf("configuration archive %s: %w; download the sensor's configuration from the server again", file, err)
	}
	archive.path = file
	return archive, nil
}

func parse(packed []byte) (*Archive, error) {
	members, err := unpack(packed)
	if err != nil {
		return nil, err
	}
	a := &Archive{members: members}
	text := a.file(configName)
	if text == nil {
		return nil, fmt.Errorf("it has no member %s", configName)
	}
	if len(text) > maxConfig {
		return nil, fmt.Errorf("%s has %d bytes: at most %d", configName, len(text), maxConfig)
	}
	a.setFile(configName, nil)
	if a.doc, err = parseINI(string(text)); err != nil {
		return nil, fmt.Errorf("%s: %w", configName, err)
	}
	return a, nil
}

// locate finds the archive's file. Symbolic links are followed here, so that
// Save replaces the archive and not the link to it.
func locate(path string) (string, error) {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("no configuration archive: %s does not exist; put the configuration archive of the sensor (s<id>.tar.gz, from the server) there", path)
	}
	if err != nil {
		return "", fmt.Errorf("find configuration archive: %w", err)
	}
	if info.IsDir() {
		if path, err = onlyArchive(path); err != nil {
			return "", err
		}
	}
	file, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", fmt.Errorf("find configuration archive: %w", err)
	}
	return file, nil
}

// onlyArchive returns the one archive of the directory.
func onlyArchive(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", fmt.Errorf("find configuration archive: %w", err)
	}
	var names []string
	for _, entry := range entries {
		name := entry.Name()
		// Hidden files are what an interrupted Save, or an editor, left there.
		if strings.HasSuffix(name, ".tar.gz") && !strings.HasPrefix(name, ".") {
			names = append(names, name)
		}
	}
	switch len(names) {
	case 0:
		return "", fmt.Errorf("no configuration archive in %s: put the configuration archive of the sensor (s<id>.tar.gz, from the server) into this directory", dir)
	case 1:
		return filepath.Join(dir, names[0]), nil
	}
	return "", fmt.Errorf("%d configuration archives in %s (%.200s): leave only the one of this sensor there", len(names), dir, strings.Join(names, ", "))
}

// readFile reads a regular file of limited size. It never waits for a pipe.
func readFile(path string) (data []byte, err error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	data, err = io.ReadAll(io.LimitReader(file, maxPacked+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxPacked {
		return nil, fmt.Errorf("%s has more than %d MB: a configuration archive has a few KB", path, maxPacked>>20)
	}
	return data, nil
}

// Path is the file that the archive was read from.
func (a *Archive) Path() string { return a.path }

// Text is the archive's INI text.
func (a *Archive) Text() string { return a.doc.String() }

// JSON is section → key → text, or null where the key is unset, in the order
// of the INI text and indented by two spaces.
func (a *Archive) JSON() []byte {
	var b bytes.Buffer
	open := "{"
	for _, s := range a.doc.sections {
		b.WriteString(open + "\n  " + quote(s.name) + ": {")
		open = ","
		for i, item := range s.items {
			if i > 0 {
				b.WriteByte(',')
			}
			text := "null"
			if item.value != nil {
				text = quote(*item.value)
			}
			b.WriteString("\n    " + quote(item.key) + ": " + text)
		}
		if len(s.items) > 0 {
			b.WriteString("\n  ")
		}
		b.WriteByte('}')
	}
	if len(a.doc.sections) == 0 {
		return []byte("{}\n")
	}
	b.WriteString("\n}\n")
	return b.Bytes()
}

// quote writes text as a JSON string. Text was checked to be UTF-8 when it was
// read, so that nothing is replaced.
func quote(text string) string {
	var b strings.Builder
	out := json.NewEncoder(&b)
	out.SetEscapeHTML(false)
	// A string can always be encoded, and a builder always written.
	_ = out.Encode(text)
	return strings.TrimSuffix(b.String(), "\n")
}

// Clone returns an archive that can be changed by itself. Both share the files'
// contents, which are never changed in place.
func (a *Archive) Clone() *Archive {
	return &Archive{path: a.path, doc: a.doc.clone(), members: slices.Clone(a.members)}
}

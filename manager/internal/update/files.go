package update

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"gopkg.in/yaml.v3"
)

// maxCompose bounds the operator's files, in bytes.
const maxCompose = 1 << 20

// EditCompose returns the compose file with another image of a service. Nothing
// else changes, not a comment, not a blank. A file in which that value is not on
// one line, or not there, is an error.
func EditCompose(text []byte, service, image string) ([]byte, error) {
	var before yaml.Node
	if err := yaml.Unmarshal(text, &before); err != nil {
		return nil, fmt.Errorf("read compose file: %w", err)
	}
	value := lookUp(&before, "services", service, "image")
	if value == nil {
		return nil, fmt.Errorf("compose file: services.%s.image: %w", service, errNoValue)
	}
	edited, err := replaceScalar(text, value, image)
	if err != nil {
		return nil, fmt.Errorf("compose file: services.%s.image: %w", service, err)
	}
	// Proof instead of trust in the position.
	var after yaml.Node
	if err := yaml.Unmarshal(edited, &after); err != nil {
		return nil, fmt.Errorf("compose file after the change: %w", err)
	}
	value.Value = image
	if !sameYAML(&before, &after) {
		return nil, errors.New("compose file: the image cannot be changed without changing more")
	}
	return edited, nil
}

var errNoValue = errors.New("there is no such value")

// lookUp follows keys through mappings.
func lookUp(node *yaml.Node, keys ...string) *yaml.Node {
	if node.Kind == yaml.DocumentNode && len(node.Content) > 0 {
		node = node.Content[0]
	}
	for _, key := range keys {
		if node = valueOf(node, key); node == nil {
			return nil
		}
	}
	return node
}

func valueOf(node *yaml.Node, key string) *yaml.Node {
	if node.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		if node.Content[i].Value == key {
			return node.Content[i+1]
		}
	}
	return nil
}

// replaceScalar writes another text in the place of a value on one line.
func replaceScalar(text []byte, node *yaml.Node, value string) ([]byte, error) {
	if node.Kind != yaml.ScalarNode || node.Anchor != "" {
		return nil, errors.New("want plain text")
	}
	lines := bytes.SplitAfter(text, []byte("\n"))
	if node.Line < 1 || node.Line > len(lines) {
		return nil, errors.New("its place was not found")
	}
	line := lines[node.Line-1]
	at := columnOffset(line, node.Column)
	length := scalarLength(line[at:], node)
	if length < 0 {
		return nil, errors.New("want the whole value on one line")
	}
	lines[node.Line-1] = bytes.Join([][]byte{line[:at], []byte(value), line[at+length:]}, nil)
	return bytes.Join(lines, nil), nil
}

// columnOffset turns a column, which counts characters from 1, into bytes.
func columnOffset(line []byte, column int) int {
	runes := 1
	for i := range string(line) {
		if runes == column {
			return i
		}
		runes++
	}
	return len(line)
}

func scalarLength(rest []byte, node *yaml.Node) int {
	switch node.Style &^ yaml.TaggedStyle {
	case yaml.DoubleQuotedStyle, yaml.SingleQuotedStyle:
		// A name of an image has no quotes in it.
		if end := bytes.IndexByte(rest[min(1, len(rest)):], rest[0]); end >= 0 && string(rest[1:end+1]) == node.Value {
			return end + 2
		}
	case 0:
		if bytes.HasPrefix(rest, []byte(node.Value)) && node.Value != "" {
			return len(node.Value)
		}
	default:
		// A block of lines is no name of an image.
	}
	return -1
}

// sameYAML compares what two documents mean, comments included.
func sameYAML(a, b *yaml.Node) bool {
	if a.Kind != b.Kind || a.Value != b.Value || a.Tag != b.Tag || a.Anchor != b.Anchor || len(a.Content) != len(b.Content) ||
		a.HeadComment != b.HeadComment || a.LineComment != b.LineComment || a.FootComment != b.FootComment {
		return false
	}
	for i := range a.Content {
		if !sameYAML(a.Content[i], b.Content[i]) {
			return false
		}
	}
	return true
}

// projectLine is the line of .env that names the compose project; what comes
// after the value stays.
var projectLine = regexp.MustCompile(`(?m)^([ \t]*(?:export[ \t]+)?COMPOSE_PROJECT_NAME[ \t]*=[ \t]*)("[^"\r\n]*"|'[^'\r\n]*'|[^\s#]*)`)

// EditEnv returns .env with another name of the compose project. The last line
// of several counts; without one a line is added.
func EditEnv(text []byte, project string) []byte {
	found := projectLine.FindAllSubmatchIndex(text, -1)
	if len(found) == 0 {
		if len(text) > 0 && !bytes.HasSuffix(text, []byte("\n")) {
			text = append(bytes.Clone(text), '\n')
		}
		return append(bytes.Clone(text), "COMPOSE_PROJECT_NAME="+project+"\n"...)
	}
	value := found[len(found)-1][4:6]
	return bytes.Join([][]byte{text[:value[0]], []byte(project), text[value[1]:]}, nil)
}

// keep copies a file so that after a power cut the copy is whole or not there.
// A file that is not there has a copy that says so.
func keep(path, copyPath string) error {
	if _, err := os.Lstat(copyPath); err == nil {
		return nil
	}
	data, err := readFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return replaceFile(copyPath+absentSuffix, nil, 0o600)
	}
	if err != nil {
		return err
	}
	return replaceFile(copyPath, data, 0o600)
}

// absentSuffix marks the copy of a file that was not there.
const absentSuffix = ".absent"

// restore brings a file back from its copy.
func restore(path, copyPath string) error {
	if _, err := os.Lstat(copyPath + absentSuffix); err == nil {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return syncDir(filepath.Dir(path))
	}
	data, err := readFile(copyPath)
	if err != nil {
		return err
	}
	return replaceFile(path, data, fresh)
}

// forget removes a copy.
func forget(copyPath string) error {
	for _, path := range []string{copyPath, copyPath + absentSuffix} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

func readFile(path string) ([]byte, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxCompose+1))
	if err == nil && len(data) > maxCompose {
		err = fmt.Errorf("%s has more than %d bytes", path, maxCompose)
	}
	return data, err
}

// fresh is the mode of a file of the operator that was not there: compose has to
// read it, whoever runs it.
const fresh = 0o644

// replaceFile writes a file whole or not at all. Owner and mode of the old one
// stay, a new one has the mode; a symbolic link stays one, and what it leads to
// is replaced.
func replaceFile(path string, data []byte, mode os.FileMode) (err error) {
	if real, linkErr := filepath.EvalSymlinks(path); linkErr == nil {
		path = real
	}
	// A fixed name: what interrupted writes leave does not pile up.
	name := filepath.Join(filepath.Dir(path), "."+strings.TrimPrefix(filepath.Base(path), ".")+".new")
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	temp, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	err = errors.Join(likeBefore(temp, path, mode), write(temp, data), temp.Close())
	if err == nil {
		err = os.Rename(name, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(name))
	}
	return syncDir(filepath.Dir(path))
}

func write(file *os.File, data []byte) error {
	if _, err := file.Write(data); err != nil {
		return err
	}
	return file.Sync()
}

func likeBefore(file *os.File, path string, mode os.FileMode) error {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return file.Chmod(mode)
	}
	if err != nil {
		return err
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		if err := file.Chown(int(stat.Uid), int(stat.Gid)); err != nil {
			return err
		}
	}
	return file.Chmod(info.Mode().Perm())
}

func syncDir(path string) (err error) {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	return dir.Sync()
}

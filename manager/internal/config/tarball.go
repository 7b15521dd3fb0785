package config

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Limits of an archive. A real one has up to five members of 2 KB each.
const (
	maxPacked  = 4 << 20
	maxMember  = 1 << 20
	maxTotal   = 8 << 20
	maxMembers = 64
)

// plainName is what a member may be called: nothing that climbs or hides.
var plainName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._ -]{0,99}$`)

// member is a file of the archive.
type member struct {
	name string
	data []byte
}

// unpack reads the members of a gzipped tar, in order.
func unpack(packed []byte) ([]member, error) {
	zip, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, fmt.Errorf("not a gzipped tar archive: %w", err)
	}
	// One byte more than allowed, so that too much is told from just enough.
	limited := &io.LimitedReader{R: zip, N: maxTotal + 1}
	members, err := readMembers(tar.NewReader(limited))
	if limited.N <= 0 {
		return nil, fmt.Errorf("more than %d MB unpacked", maxTotal>>20)
	}
	if err != nil {
		return nil, err
	}
	// The checksum of gzip comes last: an archive that was cut shows here.
	if _, err := io.Copy(io.Discard, limited); err != nil {
		return nil, fmt.Errorf("damaged at its end: %w", err)
	}
	if limited.N <= 0 {
		return nil, fmt.Errorf("more than %d MB unpacked", maxTotal>>20)
	}
	return members, nil
}

func readMembers(in *tar.Reader) ([]member, error) {
	var members []member
	total := 0
	seen := map[string]bool{}
	for {
		header, err := in.Next()
		if errors.Is(err, io.EOF) {
			return members, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read the tar archive: %w", err)
		}
		if header.Typeflag == tar.TypeDir && strings.Trim(header.Name, "./") == "" && !strings.Contains(header.Name, "..") {
			continue // what "tar -C DIR ." puts in front
		}
		m, err := readMember(in, header)
		if err != nil {
			return nil, err
		}
		if seen[m.name] {
			return nil, fmt.Errorf("member %q appears twice", m.name)
		}
		seen[m.name] = true
		// Sparse files unpack to more than was read.
		if total += len(m.data); total > maxTotal {
			return nil, fmt.Errorf("more than %d MB unpacked", maxTotal>>20)
		}
		if members = append(members, m); len(members) > maxMembers {
			return nil, fmt.Errorf("more than %d members", maxMembers)
		}
	}
}

func readMember(in io.Reader, header *tar.Header) (member, error) {
	name := strings.TrimPrefix(header.Name, "./")
	if header.Typeflag != tar.TypeReg {
		return member{}, fmt.Errorf("member %.100q is not a regular file: links, directories and devices are refused", header.Name)
	}
	if !plainName.MatchString(name) {
		return member{}, fmt.Errorf("member %.100q: want a plain file name at top level", header.Name)
	}
	if header.Size > maxMember {
		return member{}, fmt.Errorf("member %q has %d bytes: at most %d", name, header.Size, maxMember)
	}
	data := make([]byte, header.Size)
	if _, err := io.ReadFull(in, data); err != nil {
		return member{}, fmt.Errorf("read member %q: %w", name, err)
	}
	return member{name: name, data: data}, nil
}

// pack writes members as a HoneySens server does.
func pack(members []member, now time.Time) ([]byte, error) {
	var packed bytes.Buffer
	zip := gzip.NewWriter(&packed)
	out := tar.NewWriter(zip)
	for _, m := range members {
		header := &tar.Header{Name: m.name, Mode: 0o644, Size: int64(len(m.data)), ModTime: now,
			Typeflag: tar.TypeReg, Uname: "root", Gname: "root"}
		if err := out.WriteHeader(header); err != nil {
			return nil, fmt.Errorf("pack %s: %w", m.name, err)
		}
		if _, err := out.Write(m.data); err != nil {
			return nil, fmt.Errorf("pack %s: %w", m.name, err)
		}
	}
	if err := errors.Join(out.Close(), zip.Close()); err != nil {
		return nil, fmt.Errorf("pack: %w", err)
	}
	if packed.Len() > maxPacked {
		return nil, fmt.Errorf("pack: %d bytes: at most %d", packed.Len(), maxPacked)
	}
	return packed.Bytes(), nil
}

// file returns the content of a member, or nil.
func (a *Archive) file(name string) []byte {
	for _, m := range a.members {
		if m.name == name {
			return m.data
		}
	}
	return nil
}

// setFile adds or replaces a member; nil removes it.
func (a *Archive) setFile(name string, data []byte) {
	at := slices.IndexFunc(a.members, func(m member) bool { return m.name == name })
	switch {
	case data == nil && at >= 0:
		a.members = slices.Delete(a.members, at, at+1)
	case data == nil:
	case at >= 0:
		a.members[at] = member{name: name, data: data}
	default:
		a.members = append(a.members, member{name: name, data: data})
	}
}

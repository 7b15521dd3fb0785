package iface

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"strings"
)

const (
	// resolvMark starts a file of the sensor; the sensor's id follows.
	resolvMark = "# honeysens "
	// resolvKept is before each line that was there before.
	resolvKept = "#kept "
	// maxResolv is larger than any resolv.conf, in bytes.
	maxResolv = 64 << 10
)

// writeResolv puts name servers into a resolv.conf. What was there stays in it
// as comments, so the file itself tells how to restore it. It is written in
// place: an engine mounts it as a single file.
func writeResolv(path, sensor string, servers []netip.Addr) error {
	before, _, err := readResolv(path)
	if err != nil {
		return err
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%s%s\n", resolvMark, sensor)
	for _, server := range servers {
		fmt.Fprintf(&text, "nameserver %s\n", server)
	}
	for line := range strings.Lines(before) {
		text.WriteString(resolvKept + line)
	}
	return overwrite(path, text.String())
}

// restoreResolv brings a file back that match says is ours, and tells whether
// there was one.
func restoreResolv(path string, match func(sensor string) bool) (bool, error) {
	before, sensor, err := readResolv(path)
	if errors.Is(err, fs.ErrNotExist) || (err == nil && (sensor == "" || !match(sensor))) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, overwrite(path, before)
}

// readResolv returns what a file had before the sensor, and whose it is now.
func readResolv(path string) (before, sensor string, err error) {
	file, err := os.Open(path)
	if err != nil {
		return "", "", fmt.Errorf("name servers: %w", err)
	}
	defer file.Close()
	raw, err := io.ReadAll(io.LimitReader(file, maxResolv+1))
	if err != nil {
		return "", "", fmt.Errorf("name servers: %w", err)
	}
	if len(raw) > maxResolv {
		return "", "", fmt.Errorf("name servers: %s has more than %d bytes", path, maxResolv)
	}
	text := string(raw)
	first, _, _ := strings.Cut(text, "\n")
	sensor, ours := strings.CutPrefix(first, resolvMark)
	if !ours {
		return text, "", nil
	}
	var kept strings.Builder
	for line := range strings.Lines(text) {
		if was, ok := strings.CutPrefix(line, resolvKept); ok {
			kept.WriteString(was)
		}
	}
	return kept.String(), sensor, nil
}

// overwrite leaves a file alone that is right already.
func overwrite(path, text string) error {
	if now, err := os.ReadFile(path); err == nil && string(now) == text {
		return nil
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return fmt.Errorf("name servers: %w", err)
	}
	_, err = file.WriteString(text)
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("name servers: %w", err)
	}
	return nil
}

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// bundle is that of a container which is about to be created: its specification
// (https://github.com/opencontainers/runtime-spec/blob/main/config.md) and where
// the engine keeps it.
type bundle struct {
	path string // of the specification
	all  map[string]any
	spec specification

	data  string // the data directory of the engine
	dir   string // data/containers/ID
	layer string // data/overlay2/LAYER
}

// specification is the part of it that decides.
type specification struct {
	Root struct {
		Path     string `json:"path"`
		Readonly bool   `json:"readonly"`
	} `json:"root"`
	Process struct {
		Rlimits []struct {
			Type string `json:"type"`
			Hard uint64 `json:"hard"`
		} `json:"rlimits"`
	} `json:"process"`
}

func readBundle(dir, id string) (*bundle, error) {
	b := &bundle{path: filepath.Join(dir, "config.json")}
	text, err := os.ReadFile(b.path)
	if err != nil {
		return nil, fmt.Errorf("read specification: %w", err)
	}
	// What is not known here has to stay as it is.
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&b.all); err != nil {
		return nil, fmt.Errorf("read specification: %w", err)
	}
	if err := json.Unmarshal(text, &b.spec); err != nil {
		return nil, fmt.Errorf("read specification: %w", err)
	}
	b.layer = filepath.Dir(b.spec.Root.Path)
	b.data = filepath.Dir(filepath.Dir(b.layer))
	b.dir = filepath.Join(b.data, "containers", id)
	return b, nil
}

// limit is what the files of the container may take in bytes, or 0 when nothing
// bounds them.
func (b *bundle) limit() int64 {
	for _, limit := range b.spec.Process.Rlimits {
		if limit.Type == "RLIMIT_FSIZE" && limit.Hard < maxSize {
			return int64(limit.Hard) // #nosec G115 -- below maxSize
		}
	}
	return 0
}

// stacked tells whether the engine stacks the layers of the container: its storage
// driver vfs copies them.
func (b *bundle) stacked() bool {
	return filepath.Base(b.spec.Root.Path) == "merged" && filepath.Base(filepath.Dir(b.layer)) == "overlay2"
}

// dropVolumes leaves out the volumes of the engine: what is in them when it has
// made them is in the container's own directories, too.
func (b *bundle) dropVolumes() error {
	mounts, _ := b.all["mounts"].([]any)
	kept := []any{}
	for _, m := range mounts {
		mount, _ := m.(map[string]any)
		source, _ := mount["source"].(string)
		if !strings.HasPrefix(source, filepath.Join(b.data, "volumes")+"/") {
			kept = append(kept, m)
		}
	}
	if len(kept) == len(mounts) {
		return nil
	}
	b.all["mounts"] = kept
	text, err := json.Marshal(b.all)
	if err != nil {
		return fmt.Errorf("encode specification: %w", err)
	}
	// The engine makes it anew for each start.
	if err := os.WriteFile(b.path, text, 0o600); err != nil {
		return fmt.Errorf("write specification: %w", err)
	}
	return nil
}

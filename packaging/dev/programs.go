package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// programs are those of the sensor: where the build leaves them, and where the
// sensor has them.
type programs struct {
	root, revision string
	// built is the directory of the build. It is not the sensor's: the Go command
	// writes into the files, which fails for those that run.
	built string
	// dir holds the directories that are mounted.
	dir string
}

// places are the paths of the programs below dir.
var places = map[string]string{
	"manager":    "bin/manager",
	"nethelper":  "bin/nethelper",
	"init":       "lib/init",
	"pause":      "lib/pause",
	"offload":    "cni/offload",
	"bridge":     "cni/bridge",
	"host-local": "cni/host-local",
}

// build builds all programs, puts those that changed into place, and returns
// their names.
func (p *programs) build(ctx context.Context) ([]string, error) {
	if err := p.make(ctx, "dev-programs", "DEV_BUILD="+p.built); err != nil {
		return nil, err
	}
	var changed []string
	for name, place := range places {
		replaced, err := replace(filepath.Join(p.dir, place), filepath.Join(p.built, name))
		if err != nil {
			return changed, fmt.Errorf("put %s into place: %w", name, err)
		}
		if replaced {
			changed = append(changed, name)
		}
	}
	return changed, nil
}

// make runs make with the same revision every time: one that follows the
// checkout would change every program with the first edit.
func (p *programs) make(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "make", append([]string{"--no-print-directory", "--silent", "REVISION=" + p.revision}, args...)...)
	cmd.Dir = p.root
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("make %s: %w", args[0], errors.Join(err, ctx.Err()))
	}
	return nil
}

// replace makes to a copy of from, in one step: what runs keeps its file. It
// tells whether to was another file.
func replace(to, from string) (bool, error) {
	wanted, err := sum(from)
	if err != nil {
		return false, err
	}
	if have, err := sum(to); err == nil && bytes.Equal(have, wanted) {
		return false, nil
	}
	// The sensor's user has to reach them, whatever the umask says.
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return false, err
	}
	if err := os.Chmod(filepath.Dir(to), 0o755); err != nil {
		return false, err
	}
	data, err := os.ReadFile(from)
	if err != nil {
		return false, err
	}
	part := to + ".part"
	if err := os.WriteFile(part, data, 0o755); err != nil {
		return false, err
	}
	return true, errors.Join(os.Chmod(part, 0o755), os.Rename(part, to))
}

func sum(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return nil, err
	}
	return hash.Sum(nil), nil
}

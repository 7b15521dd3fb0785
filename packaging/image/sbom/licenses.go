package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"golang.org/x/mod/module"
)

// places is where the Go command keeps sources.
type places struct {
	GOMODCACHE, GOROOT string
}

func findModules(ctx context.Context) (places, error) {
	var p places
	out, err := exec.CommandContext(ctx, "go", "env", "-json", "GOMODCACHE", "GOROOT").Output()
	if err != nil {
		return p, fmt.Errorf("ask go for its directories: %w", err)
	}
	if err := json.Unmarshal(out, &p); err != nil {
		return p, fmt.Errorf("ask go for its directories: %w", err)
	}
	return p, nil
}

// dir returns where the sources of a module are.
func (p places) dir(c cdx.Component) (string, error) {
	if c.Name == "std" {
		return p.GOROOT, nil
	}
	path, err := module.EscapePath(c.Name)
	if err != nil {
		return "", err
	}
	version, err := module.EscapeVersion(c.Version)
	if err != nil {
		return "", err
	}
	return filepath.Join(p.GOMODCACHE, path+"@"+version), nil
}

// legal are the files that have to go with a program.
var legal = regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice|patents)([.-].*)?$`)

// licenses writes the licence texts of all modules but our own. A module that
// has none may not be given away: that is an error.
func licenses(out io.Writer, bom *cdx.BOM, where places) error {
	for _, c := range *bom.Components {
		if c.Name == ownModule {
			continue
		}
		if c.Type == cdx.ComponentTypeApplication && c.Version == "" {
			return fmt.Errorf("program %s has no version", c.Name)
		}
		dir, err := where.dir(c)
		if err != nil {
			return fmt.Errorf("sources of %s %s: %w", c.Name, c.Version, err)
		}
		texts, err := legalTexts(dir)
		if err != nil {
			return fmt.Errorf("licence of %s %s: %w", c.Name, c.Version, err)
		}
		fmt.Fprintf(out, "%s\n%s %s\n%s\n\n%s\n", line, c.Name, c.Version, line, texts)
	}
	return nil
}

const (
	ownModule = "honeysens.org/dockersensor"
	line      = "--------------------------------------------------------------------------------"
)

// legalTexts returns what the directory of a module, or the repository's above
// it in the same module cache, holds.
func legalTexts(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	var texts []string
	for _, entry := range entries {
		if entry.IsDir() || !legal.MatchString(entry.Name()) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			return "", err
		}
		texts = append(texts, strings.TrimSpace(string(text))+"\n")
	}
	if len(texts) == 0 {
		return "", fmt.Errorf("%s holds none", dir)
	}
	slices.Sort(texts)
	return strings.Join(texts, "\n"), nil
}

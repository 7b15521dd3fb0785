// Package deptest holds the tests that enforce the cut of the project: who may
// import whom, and what must stay out of which process.
package deptest

import (
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const module = "honeysens.org/dockersensor/"

type pkg struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	Imports    []string
	Deps       []string
}

// list returns the packages of the module with all that they depend on.
func list(t *testing.T) []pkg {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Dir,GoFiles,Imports,Deps", module+"...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var pkgs []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("decode go list: %v", err)
		}
		pkgs = append(pkgs, p)
	}
	if len(pkgs) < 5 {
		t.Fatalf("go list found %d packages only", len(pkgs))
	}
	return pkgs
}

func TestBannedDependencies(t *testing.T) {
	bans := []struct {
		of, banned, why string
		except          []string
	}{
		{of: "manager", banned: "github.com/vishvananda/netlink", why: "whatever changes the host's network is in nethelper"},
		{of: "manager", banned: "github.com/mdlayher/netlink", why: "whatever changes the host's network is in nethelper"},
		{of: "manager", banned: "github.com/google/nftables", why: "whatever changes the host's network is in nethelper"},
		{of: "manager", banned: "github.com/containernetworking", why: "whatever changes the host's network is in nethelper"},
		{of: "manager", banned: module + "nethelper", why: "the two processes share contracts, not code"},
		{of: "nethelper", banned: module + "manager", why: "the two processes share contracts, not code"},
		{of: "nethelper", banned: "github.com/docker/docker", why: "the helper knows containers by pid and cgroup only"},
		{of: "nethelper", banned: "github.com/google/go-containerregistry", why: "nothing that parses network data is in the helper"},
		{of: "nethelper", banned: module + "shared/zmtp", why: "nothing that parses network data is in the helper"},
		{of: "nethelper", banned: module + "shared/event", why: "the helper never sees an event"},
		{of: "nethelper/internal/ruleset", banned: "os", why: "translates purely; nft applies"},
		{of: "nethelper/internal/policy", banned: "os", why: "decides purely"},
		{of: "shared", banned: module + "manager", why: "shared is below both"},
		{of: "shared", banned: module + "nethelper", why: "shared is below both"},
	}
	for _, p := range list(t) {
		path := strings.TrimPrefix(p.ImportPath, module)
		for _, ban := range bans {
			if !within(path, ban.of) {
				continue
			}
			imports := p.Deps
			if ban.banned == "os" {
				// The standard library needs it itself; what counts is our own use.
				imports = p.Imports
			}
			for _, dep := range imports {
				if within(dep, ban.banned) {
					t.Errorf("%s depends on %s: %s", path, dep, ban.why)
				}
			}
		}
	}
}

// within tells whether path is the package or below it.
func within(path, root string) bool {
	return path == root || strings.HasPrefix(path, strings.TrimSuffix(root, "/")+"/")
}

// TestSiblings keeps the actors of the manager apart: app alone knows them all.
func TestSiblings(t *testing.T) {
	const internal = module + "manager/internal/"
	// Contracts that others may use: the configuration, and the server's answers.
	shared := map[string]bool{"config": true, "hsapi": true}
	for _, p := range list(t) {
		from, ok := strings.CutPrefix(p.ImportPath, internal)
		if !ok || within(from, "app") {
			continue
		}
		own, _, _ := strings.Cut(from, "/")
		for _, dep := range p.Imports {
			to, ok := strings.CutPrefix(dep, internal)
			to, _, _ = strings.Cut(to, "/")
			if ok && to != own && !shared[to] {
				t.Errorf("manager/internal/%s imports its sibling %s: only app does", from, to)
			}
		}
	}
}

// TestOneUserOfNftables keeps the kernel's tables in one hand.
func TestOneUserOfNftables(t *testing.T) {
	allowed := map[string]bool{
		"nethelper/internal/nft": true, "nethelper/internal/ruleset": true, "nethelper/internal/passage": true,
		// Redirects within the honeypot's own namespace.
		"packaging/services/recon": true,
	}
	for _, p := range list(t) {
		path := strings.TrimPrefix(p.ImportPath, module)
		for _, dep := range p.Imports {
			if within(dep, "github.com/google/nftables") && !allowed[path] && !within(path, "packaging/services/recon") {
				t.Errorf("%s imports %s: nethelper/internal/nft alone talks to nftables", path, dep)
			}
		}
	}
}

// TestPackageComments wants exactly one package comment a package.
func TestPackageComments(t *testing.T) {
	for _, p := range list(t) {
		var with []string
		for _, name := range p.GoFiles {
			file := filepath.Join(p.Dir, name)
			parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Fatalf("parse %s: %v", file, err)
			}
			if parsed.Doc != nil {
				with = append(with, name)
			}
		}
		if len(p.GoFiles) > 0 && len(with) != 1 {
			t.Errorf("%s: package comment in %v, want exactly one", p.ImportPath, with)
		}
	}
}

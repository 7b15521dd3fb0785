package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/google/go-cmp/cmp"
)

const status = `Package: s6
Status: install ok installed
Maintainer: Someone <someone@example.org>
Architecture: amd64
Version: 2.13.1-1+b1
Description: small
 Package: not a field

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.41-12
`

func TestDebian(t *testing.T) {
	packages, err := debian(strings.NewReader(status))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range packages {
		got = append(got, p.PackageURL)
	}
	want := []string{"pkg:deb/debian/s6@2.13.1-1%2Bb1?arch=amd64&distro=trixie", "pkg:deb/debian/libc6@2.41-12?arch=amd64&distro=trixie"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("packages (-want +got):\n%s", diff)
	}
	for name, text := range map[string]string{"nothing": "", "no version": "Package: s6\nStatus: install ok installed\n"} {
		if _, err := debian(strings.NewReader(text)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func program(name, module string) document {
	main := cdx.Component{BOMRef: "own#" + name, Name: ownModule, Type: cdx.ComponentTypeApplication}
	return document{program: name, bom: &cdx.BOM{
		Metadata:     &cdx.Metadata{Component: &main},
		Components:   &[]cdx.Component{{BOMRef: module + "@v1", Name: module, Version: "v1"}},
		Dependencies: &[]cdx.Dependency{{Ref: main.BOMRef, Dependencies: &[]string{module + "@v1"}}},
	}}
}

func TestMergeKeepsWhoUsesWhat(t *testing.T) {
	bom := merge("1.2.3", []document{program("b", "m"), program("a", "m")}, nil)
	var names []string
	for _, c := range *bom.Components {
		names = append(names, c.BOMRef)
	}
	if diff := cmp.Diff([]string{"m@v1", "own#a", "own#b"}, names); diff != "" {
		t.Errorf("components (-want +got):\n%s", diff)
	}
	uses := map[string][]string{}
	for _, d := range *bom.Dependencies {
		uses[d.Ref] = *d.Dependencies
	}
	want := map[string][]string{"honeysens/sensorx86:1.2.3": {"own#a", "own#b"}, "own#a": {"m@v1"}, "own#b": {"m@v1"}}
	if diff := cmp.Diff(want, uses); diff != "" {
		t.Errorf("dependencies (-want +got):\n%s", diff)
	}
}

func TestLicenses(t *testing.T) {
	cache := t.TempDir()
	dir := filepath.Join(cache, "x.org", "m@v1")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	bom := merge("", []document{program("a", "x.org/m")}, nil)
	var out strings.Builder
	if err := licenses(&out, bom, places{GOMODCACHE: cache}); err == nil || !strings.Contains(err.Error(), "licence of x.org/m v1") {
		t.Errorf("a module without a licence: %v", err)
	}
	for name, text := range map[string]string{"LICENSE.md": "do what you like\n", "NOTICE": "by somebody", "license_test.go": "package m"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	out.Reset()
	if err := licenses(&out, bom, places{GOMODCACHE: cache}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"x.org/m v1\n", "do what you like", "by somebody"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "package m") {
		t.Error("a source file is taken for a licence")
	}
}

package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

// merge makes one document. Modules that several programs use are one component;
// who uses what stays to be seen in the dependencies.
func merge(revision string, programs []document, packages []cdx.Component) *cdx.BOM {
	components := map[string]cdx.Component{}
	uses := map[string]map[string]bool{}
	use := func(ref, on string) {
		if uses[ref] == nil {
			uses[ref] = map[string]bool{}
		}
		if on != "" {
			uses[ref][on] = true
		}
	}
	image := cdx.Component{
		BOMRef: "honeysens/sensorx86:" + revision, Type: cdx.ComponentTypeContainer,
		Name: "honeysens/sensorx86", Version: revision,
	}
	for _, d := range programs {
		main := *d.bom.Metadata.Component
		main.Properties = &[]cdx.Property{{Name: "program", Value: d.program}}
		components[main.BOMRef] = main
		use(image.BOMRef, main.BOMRef)
		for _, c := range deref(d.bom.Components) {
			// The tool hashes what it has at hand; go.sum says it for modules.
			components[c.BOMRef] = c
		}
		for _, dependency := range deref(d.bom.Dependencies) {
			use(dependency.Ref, "")
			for _, on := range deref(dependency.Dependencies) {
				use(dependency.Ref, on)
			}
		}
	}
	for _, p := range packages {
		components[p.BOMRef] = p
		use(image.BOMRef, p.BOMRef)
	}
	bom := cdx.NewBOM()
	bom.Metadata = &cdx.Metadata{Component: &image}
	sorted := values(components)
	bom.Components = &sorted
	graph := dependencies(uses)
	bom.Dependencies = &graph
	return bom
}

func values(components map[string]cdx.Component) []cdx.Component {
	var all []cdx.Component
	for _, c := range components {
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b cdx.Component) int { return cmp.Compare(a.BOMRef, b.BOMRef) })
	return all
}

func dependencies(uses map[string]map[string]bool) []cdx.Dependency {
	var all []cdx.Dependency
	for ref, on := range uses {
		var refs []string
		for other := range on {
			refs = append(refs, other)
		}
		slices.Sort(refs)
		all = append(all, cdx.Dependency{Ref: ref, Dependencies: &refs})
	}
	slices.SortFunc(all, func(a, b cdx.Dependency) int { return cmp.Compare(a.Ref, b.Ref) })
	return all
}

func deref[T any](list *[]T) []T {
	if list == nil {
		return nil
	}
	return *list
}

// debian reads the packages that are installed from dpkg's status file
// (deb-control(5)).
func debian(status io.Reader) ([]cdx.Component, error) {
	var all []cdx.Component
	fields := map[string]string{}
	end := func() error {
		defer clear(fields)
		if len(fields) == 0 || !strings.HasSuffix(fields["Status"], " installed") {
			return nil
		}
		name, version := fields["Package"], fields["Version"]
		if name == "" || version == "" {
			return fmt.Errorf("a package without name or version: %v", fields)
		}
		purl := fmt.Sprintf("pkg:deb/debian/%s@%s?arch=%s&distro=trixie", name, url.QueryEscape(version), fields["Architecture"])
		all = append(all, cdx.Component{
			BOMRef: purl, PackageURL: purl, Type: cdx.ComponentTypeLibrary, Name: name, Version: version,
			Supplier: &cdx.OrganizationalEntity{Name: fields["Maintainer"]},
		})
		return nil
	}
	scanner := bufio.NewScanner(status)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		line := scanner.Text()
		if line == "" {
			if err := end(); err != nil {
				return nil, err
			}
			continue
		}
		if name, value, found := strings.Cut(line, ": "); found && !strings.HasPrefix(line, " ") {
			fields[name] = value
		}
	}
	if err := errors.Join(scanner.Err(), end()); err != nil {
		return nil, fmt.Errorf("read packages: %w", err)
	}
	if len(all) == 0 {
		return nil, errors.New("read packages: none is installed")
	}
	return all, nil
}

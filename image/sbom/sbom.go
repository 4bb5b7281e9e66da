// Package sbom writes the bill of materials of an image.
//
// Specification: SPDX 2.3 in JSON; package URLs (purl) of the types deb, pypi and golang
// name each component for vulnerability scanners. Licences are not asserted: they are in
// the packages themselves. The same components give the same bytes. Where a file was
// fetched from is left out, because it depends on the mirror; its SHA-256 is there.
package sbom

import (
	"bytes"
	"debug/buildinfo"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx/v2/common"
	"github.com/spdx/tools-golang/spdx/v2/v2_3"
)

// Image is what a bill of materials describes.
type Image struct {
	Name, Version string
	ID            string // a UUID that no other build has
	Time          time.Time
	Components    []Component
}

// Component is something that the image holds.
type Component struct {
	Kind         Kind
	Name         string
	Version      string
	Architecture string // of Debian packages
	Source       string // Debian source package, if its name is another one
	SHA256       string // of the package file; may be empty
	Within       string // what it is part of, as "root" or "program services"
}

// Kind is the type of a package URL.
type Kind string

// The kinds of components.
const (
	Debian Kind = "deb"
	Python Kind = "pypi"
	Go     Kind = "golang"
)

// Modules returns the Go modules that a program was linked from, and the Go standard
// library.
func Modules(name string, program []byte) ([]Component, error) {
	info, err := buildinfo.Read(bytes.NewReader(program))
	if err != nil {
		return nil, fmt.Errorf("cannot read the modules of program %s: %w", name, err)
	}
	within := "program " + name
	list := []Component{{Kind: Go, Name: "stdlib", Version: strings.TrimPrefix(info.GoVersion, "go"), Within: within}}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		list = append(list, Component{Kind: Go, Name: m.Path, Version: m.Version, Within: within})
	}
	return list, nil
}

// purl is the package URL of a component.
func (c Component) purl() string {
	version := url.PathEscape(c.Version)
	switch c.Kind {
	case Debian:
		return fmt.Sprintf("pkg:deb/debian/%s@%s?arch=%s&distro=trixie", url.PathEscape(c.Name), strings.ReplaceAll(version, "+", "%2B"), c.Architecture)
	case Python:
		return fmt.Sprintf("pkg:pypi/%s@%s", strings.ToLower(strings.ReplaceAll(c.Name, "_", "-")), version)
	}
	return fmt.Sprintf("pkg:golang/%s@%s", c.Name, version)
}

// id is unique among the components of an image that are not the same one.
func (c Component) id() string {
	text := fmt.Sprintf("%s-%s-%s-%s", c.Kind, c.Name, c.Version, c.Architecture)
	clean := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' {
			return r
		}
		return '-'
	}, text)
	return strings.TrimSuffix(clean, "-")
}

const (
	unknown = "NOASSERTION"
	image   = "image"
)

// Write writes the document.
func Write(w io.Writer, i Image) error {
	doc := &v2_3.Document{
		SPDXVersion: v2_3.Version, DataLicense: v2_3.DataLicense, SPDXIdentifier: "DOCUMENT",
		DocumentName: i.Name + " " + i.Version, DocumentNamespace: "urn:uuid:" + i.ID,
		CreationInfo: &v2_3.CreationInfo{
			Created:  i.Time.UTC().Format("2006-01-02T15:04:05Z"),
			Creators: []common.Creator{{CreatorType: "Tool", Creator: "walt-image"}},
		},
		Packages: []*v2_3.Package{{
			PackageName: i.Name, PackageVersion: i.Version, PackageSPDXIdentifier: image,
			PackageDownloadLocation: unknown, PackageLicenseConcluded: unknown, PackageLicenseDeclared: unknown,
			PackageCopyrightText: unknown, PrimaryPackagePurpose: "OPERATING-SYSTEM",
		}},
		Relationships: []*v2_3.Relationship{{
			RefA: common.MakeDocElementID("", "DOCUMENT"), RefB: common.MakeDocElementID("", image), Relationship: "DESCRIBES",
		}},
	}
	within := map[string][]string{}
	components := map[string]Component{}
	for _, c := range i.Components {
		id := c.id()
		components[id] = c
		if !slices.Contains(within[id], c.Within) {
			within[id] = append(within[id], c.Within)
		}
	}
	ids := make([]string, 0, len(components))
	for id := range components {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		slices.Sort(within[id])
		doc.Packages = append(doc.Packages, entry(id, components[id], within[id]))
		doc.Relationships = append(doc.Relationships, &v2_3.Relationship{
			RefA: common.MakeDocElementID("", image), RefB: common.MakeDocElementID("", id), Relationship: "CONTAINS",
		})
	}
	if err := json.Write(doc, w, json.Indent("  ")); err != nil {
		return fmt.Errorf("cannot write SBOM: %w", err)
	}
	return nil
}

func entry(id string, c Component, within []string) *v2_3.Package {
	p := &v2_3.Package{
		PackageName: c.Name, PackageVersion: c.Version, PackageSPDXIdentifier: common.ElementID(id),
		PackageDownloadLocation: unknown, PackageLicenseConcluded: unknown, PackageLicenseDeclared: unknown,
		PackageCopyrightText: unknown,
		PackageComment:       "part of " + strings.Join(within, ", "),
		PackageExternalReferences: []*v2_3.PackageExternalReference{{
			Category: common.CategoryPackageManager, RefType: "purl", Locator: c.purl(),
		}},
	}
	if c.Source != "" {
		p.PackageSourceInfo = "built from: " + c.Source
	}
	if c.SHA256 != "" {
		p.PackageChecksums = []common.Checksum{{Algorithm: common.SHA256, Value: c.SHA256}}
	}
	return p
}

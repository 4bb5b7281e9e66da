package debian

import (
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Package is one entry of a Packages index.
type Package struct {
	Name         string
	Version      Version
	Architecture string
	Suite        string // that the index belongs to
	Source       string // source package, without version
	Path         string // below the root of the archive, as "pool/main/b/bash/bash_5.2_amd64.deb"
	Size         int64
	SHA256       string
	Depends      []Dependency // Pre-Depends first
	Provides     []Relation
	Refuses      []Relation // Conflicts and Breaks
}

// Universe is the packages that a resolver may choose from: of each name the newest
// version.
type Universe struct {
	packages  map[string]*Package
	providers map[string][]*Package
}

// NewUniverse returns an empty universe.
func NewUniverse() *Universe {
	return &Universe{packages: map[string]*Package{}}
}

// Find returns the newest package of a name.
func (u *Universe) Find(name string) (*Package, bool) {
	p, ok := u.packages[name]
	return p, ok
}

// maxPackages bounds an index; the main component of Debian 13 has 69,000.
const maxPackages = 1_000_000

// Read adds the Packages index of a suite (plain text).
func (u *Universe) Read(r io.Reader, suite, architecture string) error {
	stanzas := NewStanzaReader(r, "Package", "Version", "Architecture", "Source", "Filename", "Size", "SHA256",
		"Pre-Depends", "Depends", "Provides", "Conflicts", "Breaks")
	for range maxPackages {
		s, err := stanzas.Next()
		if errors.Is(err, io.EOF) {
			u.providers = nil
			return nil
		}
		if err != nil {
			return fmt.Errorf("cannot read Packages of %s: %w", suite, err)
		}
		p, err := parsePackage(s)
		if err != nil {
			return fmt.Errorf("cannot read Packages of %s: %w", suite, err)
		}
		if p.Architecture != architecture && p.Architecture != "all" {
			continue
		}
		p.Suite = suite
		if other, known := u.packages[p.Name]; !known || p.Version.Compare(other.Version) > 0 {
			u.packages[p.Name] = p
		}
	}
	return fmt.Errorf("cannot read Packages of %s: more than %d packages", suite, maxPackages)
}

func parsePackage(s Stanza) (*Package, error) {
	p := &Package{
		Name: s["Package"], Version: Version(s["Version"]), Architecture: s["Architecture"],
		Path: s["Filename"], SHA256: s["SHA256"],
	}
	if !validName(p.Name) {
		return nil, fmt.Errorf("%.80q names no package", p.Name)
	}
	fail := func(err error) (*Package, error) { return nil, fmt.Errorf("package %s: %w", p.Name, err) }
	if err := p.Version.Check(); err != nil {
		return fail(err)
	}
	if !ValidSHA256(p.SHA256) {
		return fail(fmt.Errorf("no SHA-256: %.80q", p.SHA256))
	}
	if !ValidPath(p.Path) {
		return fail(fmt.Errorf("bad file name %.120q", p.Path))
	}
	var err error
	if p.Size, err = strconv.ParseInt(s["Size"], 10, 64); err != nil || p.Size <= 0 {
		return fail(fmt.Errorf("bad size %.40q", s["Size"]))
	}
	p.Source = p.Name
	if source := s["Source"]; source != "" {
		p.Source, _, _ = strings.Cut(source, " ")
	}
	for _, field := range []string{"Pre-Depends", "Depends"} {
		deps, err := ParseRelations(s[field])
		if err != nil {
			return fail(fmt.Errorf("%s: %w", field, err))
		}
		p.Depends = append(p.Depends, deps...)
	}
	for _, field := range []struct {
		name string
		to   *[]Relation
	}{{"Provides", &p.Provides}, {"Conflicts", &p.Refuses}, {"Breaks", &p.Refuses}} {
		deps, err := ParseRelations(s[field.name])
		if err != nil {
			return fail(fmt.Errorf("%s: %w", field.name, err))
		}
		for _, d := range deps {
			*field.to = append(*field.to, d...)
		}
	}
	return p, nil
}

// ValidPath accepts clean relative paths only, because they become file names and
// parts of addresses.
func ValidPath(p string) bool {
	if p == "" || len(p) > 500 || p != path.Clean(p) || p[0] == '/' || p == "." || p == ".." || strings.HasPrefix(p, "../") {
		return false
	}
	return !strings.ContainsAny(p, "\\?#% \x00\n")
}

// provide returns the packages that provide a virtual name, sorted by name.
func (u *Universe) provide(name string) []*Package {
	if u.providers == nil {
		u.providers = map[string][]*Package{}
		for _, p := range u.packages {
			for _, r := range p.Provides {
				if !slices.Contains(u.providers[r.Name], p) {
					u.providers[r.Name] = append(u.providers[r.Name], p)
				}
			}
		}
		for _, list := range u.providers {
			slices.SortFunc(list, func(a, b *Package) int { return strings.Compare(a.Name, b.Name) })
		}
	}
	return u.providers[name]
}

// Satisfies says whether p is or provides what r asks for.
func (p *Package) Satisfies(r Relation) bool {
	if p.Name == r.Name && r.Allows(p.Version) {
		return true
	}
	for _, provided := range p.Provides {
		if provided.Name != r.Name {
			continue
		}
		// A versioned dependency is satisfied by a versioned Provides only (policy §7.5).
		if r.Operator == "" || provided.Operator == "=" && r.Allows(provided.Version) {
			return true
		}
	}
	return false
}

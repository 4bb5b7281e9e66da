package lock

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/ulikunitz/xz"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/image/debian"
	"github.com/waltos/waltos/image/fetch"
)

// Resolver reads the signed indexes of the archive.
type Resolver struct {
	Fetcher *fetch.Fetcher
	Keyring *debian.Keyring  // default: the shipped keys that the appliance pins
	Now     func() time.Time // judges Valid-Until and key lifetimes, default time.Now
}

// Resolve makes a lock of the packages that an appliance asks for, without wheels.
func (r *Resolver) Resolve(ctx context.Context, a *hcl.Appliance) (*Lock, error) {
	l := &Lock{Debian: policyOf(a.Debian), Wanted: wants(a)}
	u, snapshots, err := r.universe(ctx, a)
	if err != nil {
		return nil, err
	}
	l.Snapshots = snapshots
	sets := map[string][]*debian.Package{}
	for _, w := range l.Wanted {
		if strings.HasPrefix(w.Set, wheelsPrefix) {
			continue
		}
		if sets[w.Set], err = u.Resolve(w.Names, l.Debian.policy()); err != nil {
			return nil, fmt.Errorf("%s: %w", w.Set, err)
		}
	}
	l.Packages = merge(sets, func(p *debian.Package) Package { return locked(p) })
	return l, nil
}

func (p Policy) policy() debian.Policy {
	return debian.Policy{Alternatives: p.Alternatives, Excluded: p.Excluded}
}

func locked(p *debian.Package) Package {
	l := Package{Name: p.Name, Version: string(p.Version), Architecture: p.Architecture, Suite: p.Suite,
		Path: p.Path, Size: p.Size, SHA256: p.SHA256}
	if p.Source != p.Name {
		l.Source = p.Source
	}
	return l
}

// merge turns sets into packages that name their sets.
func merge(sets map[string][]*debian.Package, lock func(*debian.Package) Package) []Package {
	byName := map[string]Package{}
	for name, set := range sets {
		for _, p := range set {
			l, known := byName[p.Name]
			if !known {
				l = lock(p)
			}
			l.Sets = append(l.Sets, name)
			byName[p.Name] = l
		}
	}
	var list []Package
	for _, p := range byName {
		slices.Sort(p.Sets)
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b Package) int { return strings.Compare(a.Name, b.Name) })
	return list
}

func (r *Resolver) now() time.Time {
	if r.Now != nil {
		return r.Now()
	}
	return time.Now()
}

const maxInRelease = 8 << 20

// universe reads all indexes that the appliance names.
func (r *Resolver) universe(ctx context.Context, a *hcl.Appliance) (*debian.Universe, []Snapshot, error) {
	d := a.Debian
	keyring := r.Keyring
	if keyring == nil {
		var err error
		if keyring, err = debian.Keys(d.Keys); err != nil {
			return nil, nil, err
		}
	}
	u := debian.NewUniverse()
	var snapshots []Snapshot
	for _, suite := range d.Suites {
		archive := fetch.ArchiveOf(suite)
		raw, err := r.Fetcher.Read(ctx, archive, "dists/"+suite+"/InRelease", maxInRelease)
		if err != nil {
			return nil, nil, err
		}
		release, err := keyring.ReadInRelease(bytes.NewReader(raw), r.now())
		if err != nil {
			return nil, nil, fmt.Errorf("suite %s: %w", suite, err)
		}
		// A mirror must not pass one signed suite off as another.
		if suite != release.Codename && suite != release.Suite {
			return nil, nil, fmt.Errorf("cannot trust InRelease: asked for suite %s, got %s (%s)", suite, release.Codename, release.Suite)
		}
		r.Fetcher.Progress.Say("%s: signature good, of %s", suite, release.Date.Format(time.RFC3339))
		snapshots = append(snapshots, Snapshot{suite, release.Date})
		for _, component := range d.Components {
			if err := r.index(ctx, u, release, suite, component, d.Architecture); err != nil {
				return nil, nil, err
			}
		}
	}
	return u, snapshots, nil
}

func (r *Resolver) index(ctx context.Context, u *debian.Universe, release *debian.Release, suite, component, architecture string) error {
	folder := component + "/binary-" + architecture + "/"
	for _, form := range []string{"Packages.xz", "Packages.gz", "Packages"} {
		index, listed := release.Files[folder+form]
		if !listed {
			continue
		}
		if index.Size == 0 {
			return nil
		}
		file := fetch.File{
			Label: suite + "/" + folder + form, Archive: fetch.ArchiveOf(suite),
			Path: "dists/" + suite + "/" + folder + form, Size: index.Size, SHA256: index.SHA256,
		}
		if release.ByHash {
			// The name by hash stays valid while the archive is being updated.
			file.Path, file.Other = "dists/"+suite+"/"+folder+"by-hash/SHA256/"+index.SHA256, file.Path
		}
		err := r.Fetcher.Files(ctx, []fetch.File{file})
		if gone := (*fetch.Gone)(nil); errors.As(err, &gone) {
			continue // a mirror need not keep every form
		}
		if err != nil {
			return err
		}
		return readIndex(u, r.Fetcher.Path(file), form, suite, architecture)
	}
	return fmt.Errorf("cannot read suite %s: no index of component %s for %s", suite, component, architecture)
}

// maxIndex bounds a decompressed Packages index; Debian's have 57 MB.
const maxIndex = 1 << 30

func readIndex(u *debian.Universe, path, form, suite, architecture string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	// The decoders take single bytes: unbuffered, that is a system call each.
	packed := bufio.NewReaderSize(f, 64<<10)
	var plain io.Reader = packed
	switch form {
	case "Packages.xz":
		plain, err = xz.NewReader(packed)
	case "Packages.gz":
		plain, err = gzip.NewReader(packed)
	}
	if err != nil {
		return fmt.Errorf("cannot read Packages of %s: %w", suite, err)
	}
	return u.Read(io.LimitReader(plain, maxIndex), suite, architecture)
}

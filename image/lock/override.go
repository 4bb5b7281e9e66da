package lock

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/image/debian"
	"github.com/waltos/waltos/image/fetch"
)

// Override makes a lock that does without packages that are gone: they are resolved
// again from the archive as it is now; all others stay as they are locked, unless a
// replacement needs them newer or they come from the same source package.
func (r *Resolver) Override(ctx context.Context, a *hcl.Appliance, l *Lock, gone *fetch.Gone) (*Lock, error) {
	u, snapshots, err := r.universe(ctx, a)
	if err != nil {
		return nil, fmt.Errorf("cannot replace what is gone: %w", err)
	}
	o := &override{u: u, lock: l, old: map[string]*Package{}, replaced: map[string]bool{}, sets: map[string][]*debian.Package{}}
	for i := range l.Packages {
		p := &l.Packages[i]
		o.old[p.Name] = p
		if slices.ContainsFunc(gone.Packages, func(f fetch.File) bool { return f.SHA256 == p.SHA256 }) {
			if fresh, there := u.Find(p.Name); there && fresh.SHA256 == p.SHA256 {
				return nil, fmt.Errorf("cannot replace what is gone: %s is still listed; the mirror is incomplete", p)
			}
			o.replaced[p.Name] = true
		}
	}
	for changed := true; changed; {
		if changed, err = o.widen(); err != nil {
			return nil, fmt.Errorf("cannot replace what is gone: %w", err)
		}
	}
	return o.result(snapshots), nil
}

type override struct {
	u        *debian.Universe
	lock     *Lock
	old      map[string]*Package
	replaced map[string]bool              // names that are taken from the archive as it is now
	sets     map[string][]*debian.Package // affected sets, resolved again
}

// widen adds what must be replaced together with what is replaced already.
func (o *override) widen() (changed bool, err error) {
	add := func(name string) {
		if o.replaced[name] {
			return
		}
		fresh, there := o.u.Find(name)
		if was := o.old[name]; was != nil && there && fresh.SHA256 == was.SHA256 {
			return // nothing newer
		}
		o.replaced[name], changed = true, true
	}
	for _, w := range o.lock.Wanted {
		if _, done := o.sets[w.Set]; done || !o.affected(w.Set) {
			continue
		}
		set, err := o.u.Resolve(w.Names, o.lock.Debian.policy())
		if err != nil {
			return false, fmt.Errorf("%s: %w", w.Set, err)
		}
		o.sets[w.Set], changed = set, true
		for _, p := range set {
			if o.old[p.Name] == nil {
				add(p.Name)
			}
		}
	}
	sources := map[string]bool{}
	for name := range o.replaced {
		if was := o.old[name]; was != nil {
			sources[was.source()] = true
		}
		fresh, there := o.u.Find(name)
		if !there {
			continue
		}
		sources[fresh.Source] = true
		for _, dependency := range fresh.Depends {
			for _, relation := range dependency {
				if was := o.old[relation.Name]; was != nil && !relation.Allows(debian.Version(was.Version)) {
					add(relation.Name)
				}
			}
		}
	}
	for name, was := range o.old {
		if sources[was.source()] {
			add(name)
		}
	}
	return changed, nil
}

func (o *override) affected(set string) bool {
	for name := range o.replaced {
		if p := o.old[name]; p != nil && slices.Contains(p.Sets, set) {
			return true
		}
	}
	return false
}

func (p *Package) source() string {
	if p.Source != "" {
		return p.Source
	}
	return p.Name
}

func (o *override) result(snapshots []Snapshot) *Lock {
	l := *o.lock
	l.Packages, l.Replaced = nil, slices.Clone(o.lock.Replaced)
	byName := map[string]Package{}
	for _, p := range o.lock.Packages {
		p.Sets = slices.DeleteFunc(slices.Clone(p.Sets), func(set string) bool { return o.sets[set] != nil })
		if len(p.Sets) > 0 {
			byName[p.Name] = o.entry(p, snapshots)
		}
	}
	for set, packages := range o.sets {
		for _, fresh := range packages {
			p, known := byName[fresh.Name]
			if !known {
				if was := o.old[fresh.Name]; was != nil && !o.replaced[fresh.Name] {
					p = *was
				} else {
					p = o.entry(locked(fresh), snapshots)
				}
				p.Sets = nil
			}
			p.Sets = append(p.Sets, set)
			byName[fresh.Name] = p
		}
	}
	for _, p := range byName {
		slices.Sort(p.Sets)
		l.Packages = append(l.Packages, p)
	}
	slices.SortFunc(l.Packages, func(a, b Package) int { return strings.Compare(a.Name, b.Name) })
	l.Replaced = append(l.Replaced, o.replacements(byName)...)
	return &l
}

// entry is the package as it is now, when it is replaced.
func (o *override) entry(p Package, snapshots []Snapshot) Package {
	fresh, there := o.u.Find(p.Name)
	if !o.replaced[p.Name] || !there {
		return p
	}
	sets := p.Sets
	p = locked(fresh)
	p.Sets = sets
	for _, s := range snapshots {
		if s.Suite == p.Suite {
			p.Listed = s.Date
		}
	}
	return p
}

// replacements pairs old and new: by name, else by source package, because the names
// of kernels change with their version.
func (o *override) replacements(now map[string]Package) []Replacement {
	var list []Replacement
	for name := range o.replaced {
		was := o.old[name]
		if was == nil {
			continue
		}
		pair := Replacement{Gone: was.String()}
		if is, stays := now[name]; stays {
			if is.SHA256 == was.SHA256 {
				continue
			}
			pair.Now = is.String()
		} else {
			var others []string
			for other, is := range now {
				if o.old[other] == nil && is.source() == was.source() {
					others = append(others, is.String())
				}
			}
			slices.Sort(others)
			pair.Now = strings.Join(others, ", ")
		}
		list = append(list, pair)
	}
	slices.SortFunc(list, func(a, b Replacement) int { return strings.Compare(a.Gone, b.Gone) })
	return list
}

package debian

import (
	"fmt"
	"slices"
	"strings"
)

// Policy is what a resolver is told beside the packages wanted.
type Policy struct {
	// Alternatives are packages preferred where a dependency offers a choice.
	Alternatives []string
	// Excluded are dependencies never followed: a dependency that names one of them is
	// taken as satisfied. A package asked for by name is never excluded.
	Excluded []string
}

// Resolve returns the closure of the wanted packages under Depends and Pre-Depends,
// sorted by name. The outcome depends on its arguments only, not on any order.
func (u *Universe) Resolve(wanted []string, policy Policy) ([]*Package, error) {
	r := &resolver{u: u, policy: policy, chosen: map[string]*Package{}, by: map[string]string{}}
	names := slices.Clone(wanted)
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		p, known := u.packages[name]
		if !known {
			return nil, u.unknown(name)
		}
		r.choose(p, "")
	}
	if err := r.run(); err != nil {
		return nil, err
	}
	set := make([]*Package, 0, len(r.chosen))
	for _, p := range r.chosen {
		set = append(set, p)
	}
	slices.SortFunc(set, func(a, b *Package) int { return strings.Compare(a.Name, b.Name) })
	return set, r.conflicts(set)
}

func (u *Universe) unknown(name string) error {
	if providers := u.provide(name); len(providers) > 0 {
		return fmt.Errorf("cannot resolve %s: it is virtual, provided by %s", name, names(providers))
	}
	return fmt.Errorf("cannot resolve %s: no such package", name)
}

type resolver struct {
	u      *Universe
	policy Policy
	chosen map[string]*Package
	by     map[string]string // package → the one that asked for it first
	queue  []*Package
	open   []choice // dependencies with alternatives, decided last
}

type choice struct {
	by         *Package
	dependency Dependency
}

func (r *resolver) choose(p *Package, by string) {
	if _, done := r.chosen[p.Name]; done {
		return
	}
	r.chosen[p.Name], r.by[p.Name] = p, by
	r.queue = append(r.queue, p)
}

// run follows the dependencies that leave no choice first, so that a choice falls on
// what is there anyhow.
func (r *resolver) run() error {
	for {
		for len(r.queue) > 0 {
			p := r.queue[0]
			r.queue = r.queue[1:]
			for _, d := range p.Depends {
				if err := r.follow(p, d); err != nil {
					return err
				}
			}
		}
		slices.SortFunc(r.open, func(a, b choice) int {
			return strings.Compare(a.by.Name+" "+a.dependency.String(), b.by.Name+" "+b.dependency.String())
		})
		for len(r.queue) == 0 {
			if len(r.open) == 0 {
				return nil
			}
			c := r.open[0]
			r.open = r.open[1:]
			if err := r.decide(c); err != nil {
				return err
			}
		}
	}
}

func (r *resolver) follow(p *Package, d Dependency) error {
	for _, relation := range d {
		if slices.Contains(r.policy.Excluded, relation.Name) {
			return nil
		}
	}
	if len(d) == 1 {
		if found, known := r.u.packages[d[0].Name]; known && found.Satisfies(d[0]) {
			r.choose(found, p.Name)
			return nil
		}
	}
	r.open = append(r.open, choice{p, d})
	return nil
}

// decide picks, in this order: what is chosen already, a preferred package, the first
// real package, the only provider.
func (r *resolver) decide(c choice) error {
	for _, relation := range c.dependency {
		for _, p := range r.candidates(relation) {
			if _, chosen := r.chosen[p.Name]; chosen {
				return nil
			}
		}
	}
	for _, name := range r.policy.Alternatives {
		for _, relation := range c.dependency {
			for _, p := range r.candidates(relation) {
				if p.Name == name {
					r.choose(p, c.by.Name)
					return nil
				}
			}
		}
	}
	for _, relation := range c.dependency {
		if p, real := r.u.packages[relation.Name]; real && p.Satisfies(relation) {
			r.choose(p, c.by.Name)
			return nil
		}
	}
	for _, relation := range c.dependency {
		switch found := r.candidates(relation); len(found) {
		case 0:
		case 1:
			r.choose(found[0], c.by.Name)
			return nil
		default:
			return fmt.Errorf("cannot resolve %s: %s is provided by %s; name one in debian.alternatives",
				r.chain(c.by.Name), relation, names(found))
		}
	}
	return fmt.Errorf("cannot resolve %s: it depends on %s, and %s", r.chain(c.by.Name), c.dependency, r.reason(c.dependency))
}

func (r *resolver) candidates(relation Relation) []*Package {
	var found []*Package
	if p, known := r.u.packages[relation.Name]; known && p.Satisfies(relation) {
		found = append(found, p)
	}
	for _, p := range r.u.provide(relation.Name) {
		if p.Satisfies(relation) && !slices.Contains(found, p) && !slices.Contains(r.policy.Excluded, p.Name) {
			found = append(found, p)
		}
	}
	return found
}

// chain names how a package came into the set, as "a → b → c".
func (r *resolver) chain(name string) string {
	parts := []string{name}
	for by := r.by[name]; by != ""; by = r.by[by] {
		parts = append(parts, by)
	}
	slices.Reverse(parts)
	return strings.Join(parts, " → ")
}

func (r *resolver) reason(d Dependency) string {
	var reasons []string
	for _, relation := range d {
		if p, known := r.u.packages[relation.Name]; known {
			reasons = append(reasons, fmt.Sprintf("the newest %s is %s", p.Name, p.Version))
		} else {
			reasons = append(reasons, "there is no "+relation.Name)
		}
	}
	return strings.Join(reasons, ", ")
}

// conflicts refuses a set whose members exclude each other: their files may overlap.
func (r *resolver) conflicts(set []*Package) error {
	for _, p := range set {
		for _, relation := range p.Refuses {
			for _, other := range set {
				if other != p && other.Satisfies(relation) {
					return fmt.Errorf("cannot resolve %s with %s: the former conflicts with %s",
						r.chain(p.Name), r.chain(other.Name), relation)
				}
			}
		}
	}
	return nil
}

func names(packages []*Package) string {
	list := make([]string, len(packages))
	for i, p := range packages {
		list[i] = p.Name
	}
	return strings.Join(list, ", ")
}

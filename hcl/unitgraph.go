package hcl

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sort"
	"strings"

	hcl2 "github.com/hashicorp/hcl/v2"
)

// CheckGraph refuses duplicate names, dependencies on unknown units, cycles, and sockets on
// one address. The error names all that is wrong, each with file and line.
func CheckGraph(units []*Unit) error {
	g := graph{units: map[string]*Unit{}}
	for _, u := range units {
		if other := g.units[u.Name]; other != nil {
			g.refuse(u.Range, "unit %q is already defined at %s", u.Name, place(other.Range))
			continue
		}
		g.units[u.Name] = u
		g.names = append(g.names, u.Name)
	}
	sort.Strings(g.names)
	g.checkNames()
	g.checkCycles()
	g.checkSockets()
	return errors.Join(g.wrong...)
}

type graph struct {
	units map[string]*Unit
	names []string // sorted
	wrong []error
}

func (g *graph) refuse(at hcl2.Range, format string, args ...any) {
	g.wrong = append(g.wrong, fmt.Errorf("%s: %s", place(at), fmt.Sprintf(format, args...)))
}

// place writes where something is, as compilers do.
func place(r hcl2.Range) string { return fmt.Sprintf("%s:%d", r.Filename, r.Start.Line) }

func (g *graph) checkNames() {
	for _, name := range g.names {
		u := g.units[name]
		for _, kind := range dependencyKinds {
			for _, other := range u.byKind(kind) {
				if g.units[other] == nil {
					g.refuse(u.placeOf(kind, other), "unit %q %s %q, which no unit file defines%s",
						name, kind, other, didYouMean(other, g.names))
				}
			}
		}
	}
}

// step is an edge on the way through the graph.
type step struct{ from, kind, to string }

// checkCycles visits depth first and reports each cycle where it closes, with all its edges.
func (g *graph) checkCycles() {
	const (
		entered = 1
		left    = 2
	)
	state := map[string]int{}
	var visit func(name string, path []step)
	visit = func(name string, path []step) {
		u := g.units[name]
		state[name] = entered
		for _, kind := range dependencyKinds {
			for _, next := range u.byKind(kind) {
				if g.units[next] == nil {
					continue
				}
				path := append(slices.Clip(path), step{name, kind, next})
				switch state[next] {
				case entered:
					g.refuseCycle(path[slices.IndexFunc(path, func(s step) bool { return s.from == next }):])
				case left:
				default:
					visit(next, path)
				}
			}
		}
		state[name] = left
	}
	for _, name := range g.names {
		if state[name] == 0 {
			visit(name, nil)
		}
	}
}

func (g *graph) refuseCycle(cycle []step) {
	var text strings.Builder
	for _, s := range cycle {
		fmt.Fprintf(&text, "\n  %s: %s %s %s", place(g.units[s.from].placeOf(s.kind, s.to)), s.from, s.kind, s.to)
	}
	last := cycle[len(cycle)-1]
	g.refuse(g.units[last.from].placeOf(last.kind, last.to), "the units wait for each other in a cycle:%s", text.String())
}

// checkSockets refuses two sockets of which the second could not be opened.
func (g *graph) checkSockets() {
	type claim struct {
		unit, socket string
		at           hcl2.Range
	}
	taken := map[string]claim{}
	for _, name := range g.names {
		for _, s := range g.units[name].Sockets {
			address := sameAddress(s.Listen)
			if other, ok := taken[address]; ok {
				g.refuse(s.Range, "socket %q of unit %q listens on %s, as does socket %q of unit %q at %s",
					s.Name, name, s.Listen, other.socket, other.unit, place(other.at))
				continue
			}
			taken[address] = claim{name, s.Name, s.Range}
		}
	}
}

// sameAddress writes an address in the one way that equal ones share.
func sameAddress(listen string) string {
	network, address, _ := strings.Cut(listen, ":")
	if ap, err := netip.ParseAddrPort(address); err == nil {
		return network + ":" + ap.String()
	}
	return listen
}

// placeOf returns where in its file a unit names a dependency.
func (u *Unit) placeOf(kind, name string) hcl2.Range {
	if r, ok := u.places[dependency{kind, name}]; ok {
		return r
	}
	return u.Range
}

// byKind returns the dependencies of a kind.
func (u *Unit) byKind(kind string) []string {
	switch kind {
	case "needs":
		return u.Needs
	case "wants":
		return u.Wants
	case "after":
		return u.After
	case "binds":
		return u.Binds
	}
	panic("internal error: no dependency is of the kind " + kind)
}

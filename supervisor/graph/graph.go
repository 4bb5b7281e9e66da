// Package graph draws what depends on what among units: as a tree for terminals, in the
// language of Graphviz (DOT), and as a drawing that needs no other file (SVG 1.1).
package graph

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/waltos/waltos/supervisor/control"
	"github.com/waltos/waltos/supervisor/unit"
)

// Graph is the units and their states.
type Graph struct {
	nodes  map[string]control.Node
	states map[string]unit.State
	names  []string // sorted
}

// New returns a graph; names that no node has are left out of it.
func New(nodes []control.Node, units []control.Unit) *Graph {
	g := &Graph{nodes: map[string]control.Node{}, states: map[string]unit.State{}}
	for _, n := range nodes {
		g.nodes[n.Name] = n
		g.names = append(g.names, n.Name)
	}
	for _, u := range units {
		g.states[u.Name] = u.State
	}
	slices.Sort(g.names)
	return g
}

// edge is one dependency.
type edge struct{ kind, to string }

// edges of a node, each once: the strongest kind counts.
func (g *Graph) edges(name string) []edge {
	n := g.nodes[name]
	var list []edge
	for _, kind := range []struct {
		name string
		to   []string
	}{{"needs", n.Needs}, {"binds", n.Binds}, {"wants", n.Wants}, {"after", n.After}} {
		for _, to := range kind.to {
			_, known := g.nodes[to]
			if known && !slices.ContainsFunc(list, func(e edge) bool { return e.to == to }) {
				list = append(list, edge{kind.name, to})
			}
		}
	}
	return list
}

// roots are the units that nothing depends on.
func (g *Graph) roots() []string {
	below := map[string]bool{}
	for _, name := range g.names {
		for _, e := range g.edges(name) {
			below[e.to] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(g.names), func(name string) bool { return below[name] })
}

// Tree writes the graph below a unit, or below all that nothing depends on if the name is
// empty. What was written above already is marked and not repeated. mark dresses a state.
func (g *Graph) Tree(w io.Writer, from string, mark func(unit.State) string) error {
	roots := []string{from}
	if from == "" {
		roots = g.roots()
	} else if _, ok := g.nodes[from]; !ok {
		return unit.ErrUnknown{Name: from}
	}
	var out strings.Builder
	seen := map[string]bool{}
	var write func(name, kind, first, rest string)
	write = func(name, kind, first, rest string) {
		out.WriteString(first)
		if kind != "" {
			out.WriteString(kind + " ")
		}
		fmt.Fprintf(&out, "%s (%s)", name, mark(g.states[name]))
		edges := g.edges(name)
		if seen[name] && len(edges) > 0 {
			out.WriteString(" …\n")
			return
		}
		seen[name] = true
		out.WriteString("\n")
		for i, e := range edges {
			if i == len(edges)-1 {
				write(e.to, e.kind, rest+"└─ ", rest+"   ")
			} else {
				write(e.to, e.kind, rest+"├─ ", rest+"│  ")
			}
		}
	}
	for _, name := range roots {
		write(name, "", "", "")
	}
	_, err := io.WriteString(w, out.String())
	return err
}

var dotStyles = map[string]string{"needs": "solid", "wants": "dashed", "after": "dotted"}

// DOT writes the graph for Graphviz.
func (g *Graph) DOT(w io.Writer) error {
	var out strings.Builder
	out.WriteString("digraph units {\n\trankdir=LR;\n\tnode [shape=box, style=filled];\n")
	for _, name := range g.names {
		fmt.Fprintf(&out, "\t%q [label=\"%s\\n%s\", fillcolor=%q];\n", name, name, g.states[name], color(g.states[name]))
	}
	for _, name := range g.names {
		for _, e := range g.edges(name) {
			fmt.Fprintf(&out, "\t%q -> %q [style=%s];\n", name, e.to, dotStyles[e.kind])
		}
	}
	out.WriteString("}\n")
	_, err := io.WriteString(w, out.String())
	return err
}

func color(s unit.State) string {
	switch s {
	case unit.Running, unit.Done:
		return "#cfe8cf"
	case unit.Failed, unit.Blocked:
		return "#f2b8b0"
	case unit.Stopped:
		return "#e4e4e4"
	}
	return "#f5e3b3"
}

// Measures of the drawing, in pixels.
const (
	boxWidth, boxHeight = 210, 34
	gapX, gapY          = 90, 14
)

var dashes = map[string]string{"needs": "none", "wants": "6 4", "after": "2 4"}

// SVG writes the graph in columns: each unit stands right of all that it depends on.
func (g *Graph) SVG(w io.Writer) error {
	columns := g.columns()
	type point struct{ x, y int }
	at := map[string]point{}
	rows := 0
	for c, names := range columns {
		for r, name := range names {
			at[name] = point{20 + c*(boxWidth+gapX), 40 + r*(boxHeight+gapY)}
		}
		rows = max(rows, len(names))
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, `<?xml version="1.0" encoding="UTF-8"?>
<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d">
<style>text { font: 12px sans-serif; fill: #222 } .state { font-size: 10px; fill: #555 } path { fill: none; stroke: #888 } rect { stroke: #777 }</style>
<rect width="100%%" height="100%%" fill="#fff" style="stroke: none"/>
<text x="20" y="20">line: needs; dashes: wants; dots: after; what is on the left starts first</text>
`, 40+len(columns)*(boxWidth+gapX)-gapX, 60+rows*(boxHeight+gapY))
	for _, name := range g.names {
		for _, e := range g.edges(name) {
			from, to := at[e.to], at[name]
			x1, y1, x2, y2 := from.x+boxWidth, from.y+boxHeight/2, to.x, to.y+boxHeight/2
			fmt.Fprintf(&out, `<path d="M%d %d C%d %d %d %d %d %d" stroke-dasharray="%s"/>`+"\n", x1, y1, x1+gapX/2, y1, x2-gapX/2, y2, x2, y2, dashes[e.kind])
		}
	}
	for _, name := range g.names {
		p, state := at[name], g.states[name]
		fmt.Fprintf(&out, `<rect x="%d" y="%d" width="%d" height="%d" rx="4" fill="%s"/><text x="%d" y="%d">`, p.x, p.y, boxWidth, boxHeight, color(state), p.x+8, p.y+15)
		_ = xml.EscapeText(&out, []byte(name)) // a buffer never fails
		fmt.Fprintf(&out, `</text><text class="state" x="%d" y="%d">`, p.x+8, p.y+28)
		_ = xml.EscapeText(&out, []byte(state))
		out.WriteString("</text>\n")
	}
	out.WriteString("</svg>\n")
	_, err := w.Write(out.Bytes())
	return err
}

// columns puts each unit one right of the rightmost that it depends on.
func (g *Graph) columns() [][]string {
	depth := map[string]int{}
	var measure func(name string, path int) int
	measure = func(name string, path int) int {
		if d, ok := depth[name]; ok || path > len(g.names) { // the supervisor refuses cycles
			return d
		}
		d := 0
		for _, e := range g.edges(name) {
			d = max(d, measure(e.to, path+1)+1)
		}
		depth[name] = d
		return d
	}
	var columns [][]string
	for _, name := range g.names {
		d := measure(name, 0)
		for len(columns) <= d {
			columns = append(columns, nil)
		}
		columns[d] = append(columns[d], name)
	}
	return columns
}

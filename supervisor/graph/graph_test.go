package graph

import (
	"encoding/xml"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"

	"github.com/waltos/waltos/supervisor/control"
	"github.com/waltos/waltos/supervisor/unit"
	"pgregory.net/rapid"
)

var nodes = []control.Node{
	{Name: "main", Needs: []string{"db"}, Wants: []string{"net", "db"}, After: []string{"unknown"}},
	{Name: "db", After: []string{"net"}}, {Name: "net"},
}

func plainState(s unit.State) string { return string(s) }

func TestTree(t *testing.T) {
	g := New(nodes, []control.Unit{{Name: "net", State: unit.Running}})
	var out strings.Builder
	if err := g.Tree(&out, "", plainState); err != nil {
		t.Fatal(err)
	}
	const want = "main ()\n├─ needs db ()\n│  └─ after net (running)\n└─ wants net (running)\n"
	if out.String() != want {
		t.Errorf("%s", out.String())
	}
	if err := g.Tree(io.Discard, "unknown", plainState); !errors.As(err, new(unit.ErrUnknown)) {
		t.Error(err)
	}
}

// TestDOT: Graphviz, where it is, reads it.
func TestDOT(t *testing.T) {
	var out strings.Builder
	if err := New(nodes, nil).DOT(&out); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{`"main" -> "db" [style=solid]`, `"main" -> "net" [style=dashed]`, `"db" -> "net" [style=dotted]`} {
		if !strings.Contains(out.String(), part) {
			t.Errorf("it lacks %s:\n%s", part, out.String())
		}
	}
	dot, err := exec.LookPath("dot")
	if err != nil {
		t.Skip("Graphviz is not here")
	}
	cmd := exec.Command(dot, "-Tsvg")
	cmd.Stdin = strings.NewReader(out.String())
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, text)
	}
}

// TestAnyGraph: graphs of all shapes, with cycles too, are drawn once and well-formed.
func TestAnyGraph(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-f<&"]{1,3}`), 1, 8, rapid.ID).Draw(t, "names")
		var nodes []control.Node
		some := rapid.SliceOfN(rapid.SampledFrom(names), 0, 3)
		for _, name := range names {
			nodes = append(nodes, control.Node{Name: name, Needs: some.Draw(t, "needs"), After: some.Draw(t, "after")})
		}
		g := New(nodes, nil)
		if err := g.Tree(io.Discard, names[0], plainState); err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		if err := g.SVG(&out); err != nil {
			t.Fatal(err)
		}
		decoder, boxes := xml.NewDecoder(strings.NewReader(out.String())), 0
		for {
			token, err := decoder.Token()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("%v\n%s", err, out.String())
			}
			if e, ok := token.(xml.StartElement); ok && e.Name.Local == "rect" {
				boxes++
			}
		}
		if boxes != len(names)+1 {
			t.Fatalf("%d boxes for %d units", boxes, len(names))
		}
	})
}

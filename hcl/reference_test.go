package hcl

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the reference page anew")

const referencePage = "UNITS.md"

// exampleUnit is on the page; it must be accepted.
const exampleUnit = `unit "greeter" {
  description = "says hello to whoever connects"
  exec        = ["/usr/local/bin/greeter", "-socket", "door"]
  user        = "nobody"
  needs       = ["network"]
  socket "door" {
    listen = "tcp:0.0.0.0:7777"
  }
  ready {
    notify = true
  }
  alive {
    http   = "http://127.0.0.1:7778/health"
    period = "10s"
  }
  restart {
    give_up = "5 in 1m"
  }
  limits {
    memory = "64M"
  }
}

unit "greeter-report" {
  description = "writes down who was greeted"
  type        = "oneshot"
  exec        = ["/usr/local/bin/greeter", "report"]
  after       = ["greeter"]
  timer {
    daily      = "03:30"
    jitter     = "10m"
    persistent = true
  }
}

unit "network" {
  type = "oneshot"
  exec = ["/usr/local/bin/network", "up"]
  stop = ["/usr/local/bin/network", "down"]
}
`

// TestReference generates the reference page from the schema and fails when the page that is
// kept is another.
func TestReference(t *testing.T) {
	if units, err := ParseUnits([]byte(exampleUnit), "example.hcl"); err != nil {
		t.Error(err)
	} else if err := CheckGraph(units); err != nil {
		t.Error(err)
	}
	page := newSchema(t).page()
	if *update {
		if err := os.WriteFile(referencePage, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if page != UnitReference() {
		t.Errorf("%s is not what the schema says; write it anew: go test ./hcl -run TestReference -update", referencePage)
	}
}

// schema is the source of the schema structs.
type schema struct {
	t       *testing.T
	structs map[string]*ast.StructType
	docs    map[string]string
	text    strings.Builder
	done    map[string]bool
}

func newSchema(t *testing.T) *schema {
	s := &schema{t: t, structs: map[string]*ast.StructType{}, docs: map[string]string{}, done: map[string]bool{}}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			declaration, ok := d.(*ast.GenDecl)
			if !ok || declaration.Tok != token.TYPE {
				continue
			}
			for _, spec := range declaration.Specs {
				ts := spec.(*ast.TypeSpec)
				if body, ok := ts.Type.(*ast.StructType); ok {
					s.structs[ts.Name.Name] = body
					s.docs[ts.Name.Name] = strings.Join(strings.Fields(declaration.Doc.Text()), " ")
				}
			}
		}
	}
	return s
}

// page writes the whole page.
func (s *schema) page() string {
	w := &s.text
	w.WriteString(`<!-- Generated from the schema by: go test ./hcl -run TestReference -update -->
# Unit files

The supervisor reads every ` + "`*.hcl`" + ` file of ` + "`/usr/lib/walt/units`" + ` (of the image) and of
` + "`/etc/walt/units.d`" + ` (of the administrator; a unit there stands in for one of the image that has
its name). What is wrong in any of them is refused as a whole, with file and line: unknown names, cycles
of dependencies, sockets on one address, contradictions.

"Live" in the last column: changing it restarts nothing. All else restarts the unit.

`)
	w.WriteString("```hcl\n" + exampleUnit + "```\n")
	s.block("unit", "Unit", "", false)
	return w.String()
}

// block writes a block of the language, then those within it. All of a live block is live.
func (s *schema) block(name, structName, path string, allLive bool) {
	w := &s.text
	body := s.structs[structName]
	if body == nil {
		s.t.Fatalf("block %s: no struct %s", name, structName)
	}
	title := strings.TrimPrefix(path+"."+name, ".")
	fmt.Fprintf(w, "\n## %s\n\n%s\n\n| attribute | value | meaning | live |\n|---|---|---|---|\n", title, s.docs[structName])
	type inner struct {
		name, structName string
		live             bool
	}
	var blocks []inner
	for _, field := range body.Fields.List {
		if field.Tag == nil {
			continue
		}
		tag := reflect.StructTag(strings.Trim(field.Tag.Value, "`"))
		attribute, kind, _ := strings.Cut(tag.Get("hcl"), ",")
		if attribute == "" {
			continue
		}
		live := ""
		if allLive || tag.Get("plan") == "live" {
			live = "live"
		}
		if kind == "block" {
			blocks = append(blocks, inner{attribute, typeName(field.Type), live != ""})
			fmt.Fprintf(w, "| `%s { }` | block | %s | %s |\n", attribute, "see below", live)
			continue
		}
		text := field.Doc.Text() + field.Comment.Text()
		if strings.TrimSpace(text) == "" {
			s.t.Errorf("%s.%s has no comment, which would be its documentation", structName, field.Names[0].Name)
		}
		if kind == "label" {
			attribute = "(label)"
		}
		fmt.Fprintf(w, "| `%s` | %s | %s | %s |\n", attribute, s.valueType(field.Type),
			strings.ReplaceAll(sentence(text, field.Names[0].Name), "|", "\\|"), live)
	}
	for _, b := range blocks {
		if key := title + "." + b.name; !s.done[key] {
			s.done[key] = true
			s.block(b.name, b.structName, title, b.live)
		}
	}
}

// sentence makes a table cell of a comment: "User runs the unit" becomes "Runs the unit".
func sentence(text, name string) string {
	text = strings.Join(strings.Fields(text), " ")
	for _, begin := range []string{name, ":", " ", "is ", "are "} {
		text = strings.TrimPrefix(text, begin)
	}
	return strings.ToUpper(text[:1]) + text[1:]
}

func typeName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return typeName(e.X)
	case *ast.ArrayType:
		return typeName(e.Elt)
	case *ast.Ident:
		return e.Name
	}
	return ""
}

// valueType names a Go type as people who write HCL do.
func (s *schema) valueType(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return s.valueType(e.X)
	case *ast.ArrayType:
		return "list of " + s.valueType(e.Elt)
	case *ast.MapType:
		return "map of " + s.valueType(e.Value)
	case *ast.Ident:
		if name, ok := map[string]string{"string": "text", "int": "number", "int64": "number", "bool": "true or false"}[e.Name]; ok {
			return name
		}
	}
	s.t.Errorf("a field has the type %v, which the page has no words for", e)
	return ""
}

package hcl

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	hcl2 "github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

type unitFile struct {
	Units []*Unit `hcl:"unit,block"`
}

// ParseUnits decodes the units of one file. Defaults are filled in and each unit is
// checked alone; the graph they form is checked by [CheckGraph].
func ParseUnits(src []byte, name string) ([]*Unit, error) {
	d, err := parse(src, name)
	if err != nil {
		return nil, err
	}
	var file unitFile
	if err := d.decode(&file, nil); err != nil {
		return nil, err
	}
	bodies := d.blocks("unit")
	for i, u := range file.Units {
		u.places = places(bodies[i])
		u.complete()
		u.check(d)
	}
	if err := d.err(); err != nil {
		return nil, err
	}
	return file.Units, nil
}

// LoadUnits decodes every *.hcl file of the folders, in name order, and checks the graph
// of all their units. A unit of a later folder stands in for one of that name in an
// earlier one. A later folder may be missing or empty.
func LoadUnits(folders ...string) ([]*Unit, error) {
	var all []*Unit
	for i, dir := range folders {
		units, err := loadFolder(dir)
		if err != nil {
			return nil, err
		}
		if i == 0 && len(units) == 0 {
			return nil, fmt.Errorf("cannot load units: no unit in %s: %w", dir, os.ErrNotExist)
		}
		all = slices.DeleteFunc(all, func(u *Unit) bool {
			return slices.ContainsFunc(units, func(other *Unit) bool { return other.Name == u.Name })
		})
		all = append(all, units...)
	}
	return all, CheckGraph(all)
}

// loadFolder reports what is wrong in all files at once.
func loadFolder(dir string) ([]*Unit, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("cannot list units: %w", err)
	}
	var all []*Unit
	var wrong []error
	for _, entry := range entries {
		if !strings.HasSuffix(entry.Name(), ".hcl") {
			continue
		}
		path := filepath.Join(dir, entry.Name())
		src, err := readFile(path)
		if err == nil {
			var units []*Unit
			if units, err = ParseUnits(src, path); err == nil {
				all = append(all, units...)
				continue
			}
		}
		wrong = append(wrong, err)
	}
	return all, errors.Join(wrong...)
}

// blocks returns the bodies of the blocks of a type, in the order in which they are decoded.
func (d *document) blocks(kind string) []*hclsyntax.Body {
	body, ok := d.body.(*hclsyntax.Body)
	if !ok {
		return nil
	}
	var bodies []*hclsyntax.Body
	for _, b := range body.Blocks {
		if b.Type == kind {
			bodies = append(bodies, b.Body)
		}
	}
	return bodies
}

// dependency is one edge of the graph, as a unit has it in its file.
type dependency struct{ kind, name string }

var dependencyKinds = []string{"needs", "wants", "after", "binds"}

// places finds where in the file each dependency is named.
func places(body *hclsyntax.Body) map[dependency]hcl2.Range {
	found := map[dependency]hcl2.Range{}
	for _, kind := range dependencyKinds {
		attribute := body.Attributes[kind]
		if attribute == nil {
			continue
		}
		list, ok := attribute.Expr.(*hclsyntax.TupleConsExpr)
		if !ok {
			continue
		}
		for _, item := range list.Exprs {
			if v, diags := item.Value(nil); !diags.HasErrors() && v.Type().FriendlyName() == "string" && v.IsKnown() && !v.IsNull() {
				found[dependency{kind, v.AsString()}] = item.Range()
			}
		}
	}
	return found
}

// complete fills in the defaults, so that users of a Unit never test for absence, but of
// Condition, Alive, Timer, Reload and Sandbox, which are absent when they are not given.
func (u *Unit) complete() {
	setDefault(&u.Type, "service")
	setDefault(&u.Directory, "/")
	setDefault(&u.User, "root")
	if u.Ready == nil {
		u.Ready = &Ready{}
	}
	setDefault(&u.Ready.Timeout, "90s")
	if u.Restart == nil {
		u.Restart = &Restart{}
	}
	if u.Type == "oneshot" {
		setDefault(&u.Restart.Policy, "never")
	}
	setDefault(&u.Restart.Policy, "always")
	setDefault(&u.Restart.Delay, "100ms")
	setDefault(&u.Restart.Max, longer("10s", u.Restart.Delay))
	setDefault(&u.Restart.GiveUp, "20 in 5m")
	if u.Shutdown == nil {
		u.Shutdown = &Stopper{}
	}
	setDefault(&u.Shutdown.Signal, "TERM")
	setDefault(&u.Shutdown.Timeout, "10s")
	setDefault(&u.Shutdown.Kill, "group")
	if a := u.Alive; a != nil {
		setDefault(&a.Period, "30s")
		setDefault(&a.Timeout, shorter("5s", a.Period))
		setDefault(&a.Signal, u.Shutdown.Signal)
		if a.Threshold == 0 {
			a.Threshold = 3
			if a.Notify {
				a.Threshold = 1
			}
		}
	}
	if t := u.Timer; t != nil {
		setDefault(&t.Jitter, "0s")
	}
	if r := u.Reload; r != nil {
		setDefault(&r.Timeout, "30s")
	}
	if u.Limits == nil {
		u.Limits = &Limits{}
	}
	if u.Limits.Files == 0 {
		u.Limits.Files = 16384
	}
	if u.Sandbox != nil {
		u.Sandbox.complete()
	}
	for i := range u.Sockets {
		setDefault(&u.Sockets[i].Mode, "0600")
		setDefault(&u.Sockets[i].User, u.User)
		if u.Sockets[i].Backlog == 0 {
			u.Sockets[i].Backlog = 256
		}
	}
}

// shorter returns the shorter of two durations, or the first if the second is none.
func shorter(a, b string) string {
	x, err := time.ParseDuration(b)
	if y, _ := time.ParseDuration(a); err == nil && x < y {
		return b
	}
	return a
}

// longer returns the longer of two durations, or the first if the second is none.
func longer(a, b string) string {
	if shorter(a, b) == a {
		if _, err := time.ParseDuration(b); err == nil {
			return b
		}
	}
	return a
}

func setDefault(field *string, value string) {
	if *field == "" {
		*field = value
	}
}

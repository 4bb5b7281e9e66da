package compose

import (
	"context"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/image/compare"
)

// Diff is what an administrator wants to know about going from one build to another.
type Diff struct {
	Packages []Change `json:"packages"` // by version; empty: not there
	Units    []Change `json:"units"`    // attributes, as "chrony limits.memory"
	Options  []Change `json:"options"`  // of the kernel command line
	Sizes    []Change `json:"sizes"`    // of outputs and components, in bytes
	Files    []Change `json:"files"`    // of the root, by size in bytes
}

// Change is something that is not the same; an empty side means that it is not there.
type Change struct {
	Name string `json:"name"`
	Old  string `json:"old"`
	New  string `json:"new"`
}

// DiffBuilds compares two folders of outputs.
func DiffBuilds(ctx context.Context, o Options, old, new string) (*Diff, error) {
	c, done, err := comparer(ctx, o)
	if err != nil {
		return nil, err
	}
	defer done()
	var results [2]*Result
	var roots [2]*compare.Root
	for i, dir := range []string{old, new} {
		if results[i], err = Open(dir); err != nil {
			return nil, err
		}
		if roots[i], err = c.OpenRoot(ctx, results[i].Disk, "root-"+slot); err != nil {
			return nil, err
		}
		defer roots[i].Close()
	}
	a, z := results[0].Manifest, results[1].Manifest
	d := &Diff{
		Packages: changes(a.Packages, z.Packages),
		Options:  changes(options(a.Command), options(z.Command)),
		Sizes:    changes(sizes(a), sizes(z)),
	}
	if d.Units, err = unitChanges(roots[0], roots[1]); err != nil {
		return nil, err
	}
	d.Files, err = fileChanges(roots[0], roots[1])
	return d, err
}

// changes lists what two maps do not share, by name.
func changes(old, new map[string]string) []Change {
	names := maps.Clone(old)
	maps.Copy(names, new)
	list := []Change{}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if old[name] != new[name] {
			list = append(list, Change{name, old[name], new[name]})
		}
	}
	return list
}

// options splits a kernel command line; an option given twice is numbered.
func options(command string) map[string]string {
	m := map[string]string{}
	for _, field := range strings.Fields(command) {
		name, value, ok := strings.Cut(field, "=")
		if !ok {
			value = "set"
		}
		key := name
		for n := 2; m[key] != ""; n++ {
			key = fmt.Sprintf("%s (%d)", name, n)
		}
		m[key] = value
	}
	return m
}

func sizes(m *Manifest) map[string]string {
	all := map[string]string{}
	for name, output := range m.Outputs {
		all[name] = fmt.Sprint(output.Size)
	}
	for name, size := range m.Sizes {
		all[name] = fmt.Sprint(size)
	}
	for name, size := range m.Content {
		all["content of "+name] = fmt.Sprint(size)
	}
	return all
}

func unitChanges(old, new *compare.Root) ([]Change, error) {
	var sides [2]map[string]*hcl.Unit
	names := map[string]bool{}
	for i, root := range []*compare.Root{old, new} {
		sides[i] = map[string]*hcl.Unit{}
		var files []string
		root.Names(func(name string) {
			if path.Dir(name) == lib+"/units" {
				files = append(files, name)
			}
		})
		for _, name := range files {
			content, _ := root.Read(name)
			units, err := hcl.ParseUnits(content, name)
			if err != nil {
				return nil, fmt.Errorf("cannot read units of a build: %w", err)
			}
			for _, u := range units {
				sides[i][u.Name], names[u.Name] = u, true
			}
		}
	}
	list := []Change{}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		before, after := sides[0][name], sides[1][name]
		switch {
		case before == nil:
			list = append(list, Change{Name: name, New: after.Description})
		case after == nil:
			list = append(list, Change{Name: name, Old: before.Description})
		default:
			for _, d := range hcl.Differences(before, after) {
				list = append(list, Change{name + " " + d.Path, d.Old, d.New})
			}
		}
	}
	return list, nil
}

func fileChanges(old, new *compare.Root) ([]Change, error) {
	names := map[string]int{}
	old.Names(func(name string) { names[name] |= 1 })
	new.Names(func(name string) { names[name] |= 2 })
	list := []Change{}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		change := Change{Name: name}
		if names[name]&1 != 0 {
			change.Old = fmt.Sprint(old.Size(name))
		}
		if names[name]&2 != 0 {
			change.New = fmt.Sprint(new.Size(name))
		}
		if names[name] == 3 {
			same, err := old.Same(new, name)
			if err != nil {
				return nil, err
			}
			if same {
				continue
			}
		}
		list = append(list, change)
	}
	return list, nil
}

// Report prints the changes in sections.
func (d *Diff) Report(w io.Writer) error {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, section := range []struct {
		title string
		list  []Change
	}{
		{"packages", d.Packages}, {"units", d.Units}, {"kernel options", d.Options}, {"sizes", d.Sizes}, {"files", d.Files},
	} {
		if len(section.list) == 0 {
			fmt.Fprintf(out, "%s: no change\n", section.title)
			continue
		}
		fmt.Fprintf(out, "%s: %d changed\n", section.title, len(section.list))
		for _, c := range section.list {
			fmt.Fprintf(out, "  %s\t%s\t-> %s\n", c.Name, orNone(c.Old), orNone(c.New))
		}
	}
	return out.Flush()
}

func orNone(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

// Empty reports whether nothing has changed.
func (d *Diff) Empty() bool {
	return len(d.Packages)+len(d.Units)+len(d.Options)+len(d.Sizes)+len(d.Files) == 0
}

// Package kmod finds and loads Linux kernel modules without libkmod: it reads the
// text indexes that depmod(8) writes below /lib/modules/RELEASE (modules.dep,
// modules.alias, modules.softdep, modules.builtin; formats of modules.dep(5) and
// modprobe.d(5)), computes what a module needs, and loads with finit_module(2).
//
// It serves PID 1, the node program and the image builder (which only asks for
// closures), so it imports nothing of the project and works on any fs.FS.
//
// Refused: lines over 64 KiB and paths that leave the module folder. Not supported: the
// commands of modprobe.d but options and blacklist, the binary indexes, module removal.
package kmod

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"sort"
	"strings"
	"sync"
)

// maxLine bounds a line of an index; the longest known line of modules.dep is 1.5 kB.
const maxLine = 64 << 10

// Catalog is the content of one module folder. It may be used from any goroutine.
type Catalog struct {
	fsys    fs.FS
	modules map[string]dependency // by normalised name
	builtin map[string]bool
	soft    map[string]SoftDependency

	once     sync.Once
	aliases  map[string][]string // of soft dependencies
	aliasErr error
}

// dependency is one line of modules.dep: paths relative to the module folder. Of 2,700
// lines a closure needs a few, so the second part is split when it is asked for.
type dependency struct {
	path  string
	needs string // paths, what is nearest first
}

// SoftDependency is one line of modules.softdep: modules (or aliases) to try
// before and after one, whose absence is no error.
type SoftDependency struct {
	Pre, Post []string
}

// Open reads the indexes of a module folder. Only modules.dep must exist.
func Open(fsys fs.FS) (*Catalog, error) {
	c := &Catalog{fsys: fsys, builtin: map[string]bool{}, soft: map[string]SoftDependency{}}
	for _, index := range []struct {
		name     string
		optional bool
		parse    func(io.Reader) error
	}{
		{"modules.dep", false, func(r io.Reader) (err error) { c.modules, err = parseDep(r); return err }},
		{"modules.builtin", true, func(r io.Reader) (err error) { c.builtin, err = parseBuiltin(r); return err }},
		{"modules.softdep", true, func(r io.Reader) (err error) { c.soft, err = parseSoftdep(r); return err }},
	} {
		f, err := fsys.Open(index.name)
		if errors.Is(err, fs.ErrNotExist) && index.optional {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read module index: %w", err)
		}
		err = index.parse(f)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("cannot read module index %s: %w", index.name, err)
		}
	}
	return c, nil
}

// Normalize returns the canonical spelling of a module name: underscores, no folder,
// no suffix.
func Normalize(name string) string {
	name = path.Base(name)
	if i := strings.Index(name, ".ko"); i > 0 {
		name = name[:i]
	}
	return strings.ReplaceAll(name, "-", "_")
}

// Names returns the names of all loadable modules, sorted.
func (c *Catalog) Names() []string {
	names := make([]string, 0, len(c.modules))
	for name := range c.modules {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// Path returns the file of a module below the module folder, or "".
func (c *Catalog) Path(name string) string { return c.modules[Normalize(name)].path }

// Builtin tells whether the kernel itself contains the module.
func (c *Catalog) Builtin(name string) bool { return c.builtin[Normalize(name)] }

// Step is one module of a closure.
type Step struct {
	Name string
	Path string // below the module folder
	// Soft: whoever asked for it can do without.
	Soft bool
}

// Closure returns, in loading order, the named modules with all that they need and
// their soft dependencies. A name may be a module or an alias. A module that is built
// into the kernel counts as there. An unknown name is an error, an unknown soft
// dependency is not.
func (c *Catalog) Closure(names ...string) ([]Step, error) {
	w := walk{catalog: c, at: map[string]int{}, entered: map[string]bool{}}
	var aliases []string
	for _, name := range names {
		if !c.known(name) {
			aliases = append(aliases, name)
		}
	}
	if len(aliases) > 0 {
		var err error
		if w.aliases, err = c.Match(aliases); err != nil {
			return nil, err
		}
	}
	for _, name := range names {
		targets := w.aliases[name]
		if c.known(name) {
			targets = []string{Normalize(name)}
		}
		if len(targets) == 0 {
			return nil, fmt.Errorf("cannot find module %q: neither a module nor an alias", name)
		}
		for _, target := range targets {
			if err := w.visit(target, len(targets) > 1); err != nil {
				return nil, err
			}
		}
	}
	return w.steps, nil
}

func (c *Catalog) known(name string) bool {
	name = Normalize(name)
	return c.modules[name].path != "" || c.builtin[name]
}

type walk struct {
	catalog *Catalog
	aliases map[string][]string // of the names asked for
	at      map[string]int      // index in steps by name
	entered map[string]bool
	steps   []Step
}

// targets returns the modules that a soft dependency stands for, or nothing.
func (w *walk) targets(name string) ([]string, error) {
	if w.catalog.known(name) {
		return []string{Normalize(name)}, nil
	}
	aliases, err := w.catalog.softAliases()
	return aliases[name], err
}

// softAliases returns what those soft dependencies stand for that are no module names.
// These are few in the whole folder, so all are looked up at the first need of one.
func (c *Catalog) softAliases() (map[string][]string, error) {
	c.once.Do(func() {
		var names []string
		for _, soft := range c.soft {
			for _, name := range slices.Concat(soft.Pre, soft.Post) {
				if !c.known(name) {
					names = append(names, name)
				}
			}
		}
		c.aliases, c.aliasErr = c.Match(names)
	})
	return c.aliases, c.aliasErr
}

// visitSoft visits the modules of soft dependencies, as far as they exist.
func (w *walk) visitSoft(names []string) error {
	for _, name := range names {
		targets, err := w.targets(name)
		if err != nil {
			return err
		}
		for _, target := range targets {
			if err := w.visit(target, true); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *walk) visit(name string, soft bool) error {
	if w.catalog.builtin[name] {
		return nil
	}
	module, ok := w.catalog.modules[name]
	if !ok {
		if soft {
			return nil
		}
		return fmt.Errorf("cannot find module %q", name)
	}
	if w.entered[name] {
		w.harden(name, soft)
		return nil
	}
	w.entered[name] = true
	if err := w.visitSoft(w.catalog.soft[name].Pre); err != nil {
		return err
	}
	// modules.dep lists what is nearest first; what is needed by all comes last.
	for _, file := range slices.Backward(strings.Fields(module.needs)) {
		if err := w.visit(Normalize(file), soft); err != nil {
			return fmt.Errorf("module %s: %w", name, err)
		}
	}
	w.at[name] = len(w.steps)
	w.steps = append(w.steps, Step{Name: name, Path: module.path, Soft: soft})
	if err := w.visitSoft(w.catalog.soft[name].Post); err != nil {
		return err
	}
	return nil
}

// harden notes that a module first met as a soft dependency is needed after all, and
// so is all that it needs.
func (w *walk) harden(name string, soft bool) {
	i, ok := w.at[name]
	if soft || !ok || !w.steps[i].Soft {
		return
	}
	w.steps[i].Soft = false
	for _, file := range strings.Fields(w.catalog.modules[name].needs) {
		w.harden(Normalize(file), false)
	}
}

func lines(r io.Reader, each func(line string) error) error {
	scanner := bufio.NewScanner(r)
	scanner.Buffer(make([]byte, 4096), maxLine)
	number := 0
	for scanner.Scan() {
		number++
		if err := each(scanner.Text()); err != nil {
			return fmt.Errorf("line %d: %w", number, err)
		}
	}
	return scanner.Err()
}

// parseDep reads "PATH: PATH..." lines. The second part only serves to find the lines of
// other modules, by name, so it may say anything.
func parseDep(r io.Reader) (map[string]dependency, error) {
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	text := string(data) // one allocation, which all the entries share
	modules := make(map[string]dependency, strings.Count(text, "\n"))
	number := 0
	for line := range strings.Lines(text) {
		number++
		if len(line) > maxLine {
			return nil, fmt.Errorf("line %d: longer than %d bytes", number, maxLine)
		}
		file, needs, ok := strings.Cut(line, ":")
		if !ok {
			if strings.TrimSpace(line) == "" {
				continue
			}
			return nil, fmt.Errorf("line %d: no colon in %q", number, line)
		}
		if file = strings.TrimSpace(file); !fs.ValidPath(file) || file == "." {
			return nil, fmt.Errorf("line %d: %q is not a path below the module folder", number, file)
		}
		modules[Normalize(file)] = dependency{file, needs}
	}
	return modules, nil
}

func parseBuiltin(r io.Reader) (map[string]bool, error) {
	names := map[string]bool{}
	return names, lines(r, func(line string) error {
		if line = strings.TrimSpace(line); line != "" {
			names[Normalize(line)] = true
		}
		return nil
	})
}

// parseSoftdep reads "softdep NAME pre: NAME... post: NAME..." lines; a name that
// has several lines gets them all.
func parseSoftdep(r io.Reader) (map[string]SoftDependency, error) {
	all := map[string]SoftDependency{}
	return all, lines(r, func(line string) error {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "softdep" {
			return nil // comments and what newer versions add
		}
		name := Normalize(fields[1])
		soft := all[name]
		list := &[]string{} // names before pre: and post: belong nowhere
		for _, field := range fields[2:] {
			switch field {
			case "pre:":
				list = &soft.Pre
			case "post:":
				list = &soft.Post
			default:
				*list = append(*list, field)
			}
		}
		all[name] = soft
		return nil
	})
}

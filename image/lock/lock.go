// Package lock keeps the list of every file that goes into the appliance: each package
// and wheel with version, size and SHA-256.
//
// The lock file is JSON with one item a line, sorted, so that a change reads well as a
// diff. It names pool paths and hashes, never a host. A package appears once, in one
// version, with the sets it belongs to:
//
//	boot          the kernel and the stub of unified kernel images
//	root          the read-only system
//	image/NAME    a node image
//	tool/NAME     programs run from the cache
//
// Resolver makes a lock from the description of the appliance and the signed indexes of
// the archive, and a lock override where locked packages are gone. An appliance of
// another architecture than the tools' has a lock of its own, with boot and root only.
package lock

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/image/debian"
	"github.com/waltos/waltos/image/fetch"
)

// Names of sets.
const (
	Boot = "boot"
	Root = "root"
)

// ImageSet names the set of a node image.
func ImageSet(name string) string { return "image/" + name }

// ToolSet names the set of a tool block.
func ToolSet(name string) string { return "tool/" + name }

// Lock is the content of a lock file.
type Lock struct {
	Debian    Policy
	Snapshots []Snapshot
	Wanted    []Wanted
	Packages  []Package
	Wheels    []Wheel
	// Replaced is set in a lock override only: what was gone and what stands in.
	Replaced []Replacement
}

// Policy is what of hcl.Debian decides the outcome of a resolution.
type Policy struct {
	Architecture string   `json:"architecture"`
	Suites       []string `json:"suites"`
	Components   []string `json:"components"`
	Alternatives []string `json:"alternatives,omitempty"`
	Excluded     []string `json:"excluded,omitempty"`
}

// Snapshot is the state of a suite that the lock was made from.
type Snapshot struct {
	Suite string    `json:"suite"`
	Date  time.Time `json:"date"` // of its InRelease file
}

// Wanted is what was asked for by name.
type Wanted struct {
	Set   string   `json:"set"` // as "root"; "wheels/NAME" for wheels
	Names []string `json:"names"`
}

// Package is a locked package.
type Package struct {
	Name         string   `json:"name"`
	Version      string   `json:"version"`
	Architecture string   `json:"architecture"`
	Suite        string   `json:"suite"`
	Source       string   `json:"source,omitempty"` // when not the name
	Path         string   `json:"path"`
	Size         int64    `json:"size"`
	SHA256       string   `json:"sha256"`
	Sets         []string `json:"sets"`
	// Listed is set in a lock override: the date of the InRelease of a stand-in.
	Listed time.Time `json:"listed,omitzero"`
}

func (p *Package) String() string { return p.Name + " " + p.Version }

// Wheel is a locked Python package.
type Wheel struct {
	Set     string `json:"set"` // name of its wheels block
	Name    string `json:"name"`
	Version string `json:"version"`
	File    string `json:"file"`
	Size    int64  `json:"size"`
	SHA256  string `json:"sha256"`
}

// Replacement says what a lock override uses instead of a package that is gone.
type Replacement struct {
	Gone string `json:"gone"` // name and version
	Now  string `json:"now"`  // the same; empty when nothing needs it any more
}

// Released says whether the lock is the one that was published. An override is not, and
// what is built from it must be marked as "not the released image".
func (l *Lock) Released() bool { return len(l.Replaced) == 0 }

// Set returns the packages of a set, sorted by name.
func (l *Lock) Set(name string) ([]*Package, error) {
	var set []*Package
	for i := range l.Packages {
		if p := &l.Packages[i]; slices.Contains(p.Sets, name) {
			set = append(set, p)
		}
	}
	if len(set) == 0 {
		return nil, fmt.Errorf("cannot use set %q: the lock has no package of it", name)
	}
	return set, nil
}

// Sets names all sets of packages but some.
func (l *Lock) Sets(but ...string) (sets []string) {
	for _, w := range l.Wanted {
		if !strings.HasPrefix(w.Set, wheelsPrefix) && !slices.Contains(but, w.Set) {
			sets = append(sets, w.Set)
		}
	}
	return sets
}

// Files returns the files of some sets; of every set when none is named.
func (l *Lock) Files(sets ...string) ([]fetch.File, error) {
	if len(sets) == 0 {
		sets = l.Sets()
	}
	var files []fetch.File
	seen := map[string]bool{}
	for _, name := range sets {
		set, err := l.Set(name)
		if err != nil {
			return nil, err
		}
		for _, p := range set {
			if !seen[p.Name] {
				files = append(files, l.File(p))
			}
			seen[p.Name] = true
		}
	}
	return files, nil
}

// File says how to fetch a package.
func (l *Lock) File(p *Package) fetch.File {
	f := fetch.File{Label: p.String(), Archive: fetch.ArchiveOf(p.Suite), Path: p.Path, Size: p.Size, SHA256: p.SHA256, Snapshot: p.Listed}
	for _, s := range l.Snapshots {
		if s.Suite == p.Suite && f.Snapshot.IsZero() {
			f.Snapshot = s.Date
		}
	}
	return f
}

// WheelSet returns the wheels of a wheels block.
func (l *Lock) WheelSet(name string) ([]Wheel, error) {
	var set []Wheel
	for _, w := range l.Wheels {
		if w.Set == name {
			set = append(set, w)
		}
	}
	if len(set) == 0 {
		return nil, fmt.Errorf("cannot use wheels %q: the lock has none", name)
	}
	return set, nil
}

const wheelsPrefix = "wheels/"

// wants lists what a description asks for.
func wants(a *hcl.Appliance) []Wanted {
	sorted := func(names []string) []string {
		names = slices.Clone(names)
		slices.Sort(names)
		return slices.Compact(names)
	}
	list := []Wanted{{Boot, sorted(append([]string{a.Boot.Kernel}, a.Boot.Packages...))}, {Root, sorted(a.Root.Packages)}}
	for _, i := range a.Images {
		list = append(list, Wanted{ImageSet(i.Name), sorted(i.Packages)})
	}
	for _, t := range a.Tools {
		list = append(list, Wanted{ToolSet(t.Name), sorted(t.Packages)})
	}
	for _, w := range a.Wheels {
		list = append(list, Wanted{wheelsPrefix + w.Name, sorted(w.Requirements)})
	}
	slices.SortFunc(list, func(a, b Wanted) int { return strings.Compare(a.Set, b.Set) })
	return list
}

func policyOf(d *hcl.Debian) Policy {
	return Policy{d.Architecture, d.Suites, d.Components, d.Alternatives, sortedStrings(d.Excluded)}
}

func sortedStrings(list []string) []string {
	list = slices.Clone(list)
	slices.Sort(list)
	return list
}

// Check says whether the lock was made from this description.
func (l *Lock) Check(a *hcl.Appliance) error {
	stale := func(what string) error {
		return errors.New("the lock was made from another description: " + what)
	}
	same := func(a, b any) bool {
		x, _ := json.Marshal(a)
		y, _ := json.Marshal(b)
		return bytes.Equal(x, y)
	}
	if !same(l.Debian, policyOf(a.Debian)) {
		return stale("the block debian has changed")
	}
	wanted := wants(a)
	for _, w := range wanted {
		i := slices.IndexFunc(l.Wanted, func(x Wanted) bool { return x.Set == w.Set })
		if i < 0 {
			return stale(w.Set + " is new")
		}
		if !slices.Equal(l.Wanted[i].Names, w.Names) {
			return stale("what " + w.Set + " names has changed")
		}
	}
	if len(wanted) != len(l.Wanted) {
		return stale("a set was removed")
	}
	return nil
}

// Load reads a lock file.
func Load(name string) (*Lock, error) {
	raw, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("cannot read lock: %w", err)
	}
	l, err := Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("cannot read lock %s: %w", name, err)
	}
	return l, nil
}

// file is the lock file as JSON.
type file struct {
	Debian    Policy        `json:"debian"`
	Snapshots []Snapshot    `json:"snapshots"`
	Wanted    []Wanted      `json:"wanted"`
	Packages  []Package     `json:"packages"`
	Wheels    []Wheel       `json:"wheels"`
	Replaced  []Replacement `json:"replaced"`
}

// Parse reads the content of a lock file.
func Parse(raw []byte) (*Lock, error) {
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.DisallowUnknownFields()
	var f file
	if err := decoder.Decode(&f); err != nil {
		line := 1 + bytes.Count(raw[:min(int64(len(raw)), decoder.InputOffset())], []byte("\n"))
		return nil, fmt.Errorf("line %d: %w", line, err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("text follows the lock")
	}
	l := Lock(f)
	names := map[string]bool{}
	for _, p := range l.Packages {
		if p.Name == "" || names[p.Name] {
			return nil, fmt.Errorf("package %q: named twice or not at all", p.Name)
		}
		names[p.Name] = true
		if !debian.ValidSHA256(p.SHA256) || p.Size <= 0 || !debian.ValidPath(p.Path) || len(p.Sets) == 0 {
			return nil, fmt.Errorf("package %q: bad hash, size, path or sets", p.Name)
		}
	}
	for _, w := range l.Wheels {
		if !debian.ValidSHA256(w.SHA256) || w.Size <= 0 || w.File != filepath.Base(w.File) || !strings.HasSuffix(w.File, ".whl") {
			return nil, fmt.Errorf("wheel %q: bad hash, size or file", w.Name)
		}
	}
	return &l, nil
}

// Encode writes the lock in its one form.
func (l *Lock) Encode() []byte {
	var b bytes.Buffer
	b.WriteString("{\n\"debian\": ")
	b.Write(oneLine(l.Debian))
	encodeList(&b, "snapshots", l.Snapshots)
	encodeList(&b, "wanted", l.Wanted)
	encodeList(&b, "packages", l.Packages)
	encodeList(&b, "wheels", l.Wheels)
	encodeList(&b, "replaced", l.Replaced)
	b.WriteString("\n}\n")
	return b.Bytes()
}

func encodeList[T any](b *bytes.Buffer, key string, items []T) {
	fmt.Fprintf(b, ",\n%q: [", key)
	for i, item := range items {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString("\n  ")
		b.Write(oneLine(item))
	}
	if len(items) > 0 {
		b.WriteByte('\n')
	}
	b.WriteByte(']')
}

func oneLine(v any) []byte {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		panic("internal error: " + err.Error()) // plain structs always encode
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// Digest identifies the lock, as a manifest names it.
func (l *Lock) Digest() string {
	sum := sha256.Sum256(l.Encode())
	return hex.EncodeToString(sum[:])
}

// Save writes the lock file.
func (l *Lock) Save(name string) error {
	temp, err := os.CreateTemp(filepath.Dir(name), ".lock-")
	if err != nil {
		return fmt.Errorf("cannot write lock: %w", err)
	}
	defer os.Remove(temp.Name())
	defer temp.Close()
	if _, err := temp.Write(l.Encode()); err != nil {
		return fmt.Errorf("cannot write lock: %w", err)
	}
	if err := temp.Chmod(0o644); err != nil {
		return fmt.Errorf("cannot write lock: %w", err)
	}
	if err := temp.Close(); err != nil {
		return fmt.Errorf("cannot write lock: %w", err)
	}
	return os.Rename(temp.Name(), name)
}

// Changes lists in words what differs from an older lock: versions, sizes of the files,
// the files that are no longer fetched, sets that something has joined or left, and in the end how much
// each set weighs.
func (l *Lock) Changes(old *Lock) []string {
	var list []string
	before, after := old.entries(), l.entries()
	for _, name := range sortedKeys(before, after) {
		was, is := before[name], after[name]
		switch {
		case was.file == "":
			list = append(list, fmt.Sprintf("+ %s %s (%s; %s)", name, is.version, megabytes(is.size), is.sets))
		case is.file == "":
			list = append(list, fmt.Sprintf("- %s %s (%s; %s), no longer fetched: %s", name, was.version, megabytes(was.size), was.sets, was.file))
		case was.version != is.version || was.file != is.file:
			list = append(list, fmt.Sprintf("  %s %s → %s (%s → %s)", name, was.version, is.version, megabytes(was.size), megabytes(is.size)))
		case was.sets != is.sets:
			list = append(list, fmt.Sprintf("  %s %s: %s → %s", name, is.version, was.sets, is.sets))
		}
	}
	weights, now := old.weights(), l.weights()
	for _, set := range sortedKeys(weights, now) {
		if weights[set] != now[set] {
			list = append(list, fmt.Sprintf("set %s: %s → %s", set, megabytes(weights[set]), megabytes(now[set])))
		}
	}
	return list
}

// changed is what Changes says of a package or wheel.
type changed struct {
	version, file, sets string
	size                int64
}

func (l *Lock) entries() map[string]changed {
	m := map[string]changed{}
	for _, p := range l.Packages {
		m[p.Name] = changed{p.Version, p.Path, strings.Join(p.Sets, ", "), p.Size}
	}
	for _, w := range l.Wheels {
		m["wheel "+w.Name] = changed{w.Version, w.File, "wheels/" + w.Set, w.Size}
	}
	return m
}

// weights are the bytes to fetch for each set.
func (l *Lock) weights() map[string]int64 {
	m := map[string]int64{}
	for _, p := range l.Packages {
		for _, set := range p.Sets {
			m[set] += p.Size
		}
	}
	for _, w := range l.Wheels {
		m["wheels/"+w.Set] += w.Size
	}
	return m
}

func megabytes(n int64) string { return fmt.Sprintf("%.2f MB", float64(n)/1e6) }

func sortedKeys[T any](maps ...map[string]T) []string {
	var keys []string
	for _, m := range maps {
		for k := range m {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

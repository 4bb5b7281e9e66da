package device

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// maxName is the longest name of a file.
const maxName = 255

// Links keeps /dev/disk. When several disks claim a name, as copies of one file system do, the
// one that came first has it until it goes.
type Links struct {
	tree   Tree
	claims map[string][]string // names of devices by link
	of     map[string][]string // links by DEVPATH
}

// NewLinks makes a keeper of links below Dev/disk.
func NewLinks(tree Tree) *Links {
	return &Links{tree: tree, claims: map[string][]string{}, of: map[string][]string{}}
}

// Sync makes the links of all disks that are there, and removes those of others.
func (l *Links) Sync() error {
	var failures []error
	there := map[string]bool{}
	for _, d := range l.tree.List("block") {
		there[d.path] = true
		if l.of[d.path] == nil {
			failures = append(failures, l.Add(d))
		}
	}
	for path := range l.of {
		if !there[path] {
			failures = append(failures, l.Remove(path))
		}
	}
	return errors.Join(failures...)
}

// Add makes the links of a disk; those that it had and has no more go.
func (l *Links) Add(d *Device) error {
	names := append(d.Links(), d.content().links()...)
	names = slices.DeleteFunc(names, func(name string) bool {
		base := filepath.Base(name)
		return strings.Trim(base, ".") == "" || strings.HasSuffix(name, "/") || len(base) > maxName
	})
	slices.Sort(names)
	names = slices.Compact(names)
	old := l.of[d.path]
	l.of[d.path] = names
	var failures []error
	for _, name := range old {
		if !slices.Contains(names, name) {
			failures = append(failures, l.release(name, d.Name()))
		}
	}
	for _, name := range names {
		if !slices.Contains(l.claims[name], d.Name()) {
			l.claims[name] = append(l.claims[name], d.Name())
			failures = append(failures, l.point(name))
		}
	}
	return errors.Join(failures...)
}

// Remove removes the links of a disk that has gone.
func (l *Links) Remove(path string) error {
	var failures []error
	for _, name := range l.of[path] {
		failures = append(failures, l.release(name, filepath.Base(path)))
	}
	delete(l.of, path)
	return errors.Join(failures...)
}

// release takes a link from a device.
func (l *Links) release(name, device string) error {
	l.claims[name] = slices.DeleteFunc(l.claims[name], func(other string) bool { return other == device })
	return l.point(name)
}

// point makes a link lead to the first that claims it.
func (l *Links) point(name string) error {
	path := filepath.Join(l.tree.Dev, "disk", name)
	if len(l.claims[name]) == 0 {
		delete(l.claims, name)
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	target := "../../" + l.claims[name][0]
	if now, err := os.Readlink(path); err == nil && now == target {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Symlink(target, path)
}

// content looks for a file system on a disk; what cannot be read has none.
func (d *Device) content() Content {
	if virtual.MatchString(d.Name()) {
		return Content{}
	}
	// Without waiting: a drive without a medium is open at once.
	f, err := os.OpenFile(filepath.Join(d.tree.Dev, d.Name()), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return Content{}
	}
	defer f.Close()
	c, err := ReadContent(f)
	if err != nil {
		return Content{}
	}
	return c
}

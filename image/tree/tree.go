// Package tree holds a file system in memory: what packages, our own programs and
// static files add up to, before a writer (EROFS, cpio, FAT, container layer) turns
// it into bytes.
//
// Owners, modes and extended attributes are those of the tree, never those of the
// host, and there is one modification time for everything: hence no privilege is
// needed, and the same input gives the same output. Paths are absolute and use
// slashes; the folders of a path may be symbolic links of the tree (as /bin ->
// usr/bin) and are followed. Refused: two different files at one path, unless the
// later one replaces the earlier explicitly; sockets.
package tree

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
)

// maxLinks bounds how many symbolic links one path may pass through.
const maxLinks = 40

// ErrNotFound is wrapped by errors about paths that the tree does not have.
var ErrNotFound = errors.New("no such file in the tree")

// File is one inode: a path of the tree, or several (hard links).
type File struct {
	// Mode holds the type and the permission bits, with fs.ModeSetuid,
	// fs.ModeSetgid and fs.ModeSticky.
	Mode     fs.FileMode
	UID, GID int
	Content  []byte // of a regular file; not to be changed
	Target   string // of a symbolic link
	Device   [2]uint32
	Xattrs   map[string]string // by full name, as "security.capability"
	// Origin tells in messages where the file comes from, as a package name.
	Origin string

	entries map[string]*File // of a folder
}

// IsDir reports whether the file is a folder.
func (f *File) IsDir() bool { return f.Mode.IsDir() }

// Names returns the sorted names of a folder.
func (f *File) Names() []string { return slices.Sorted(maps.Keys(f.entries)) }

// same reports whether two files could be one inode.
func (f *File) same(o *File) bool {
	return f.Mode == o.Mode && f.UID == o.UID && f.GID == o.GID && f.Target == o.Target &&
		f.Device == o.Device && maps.Equal(f.Xattrs, o.Xattrs) && bytes.Equal(f.Content, o.Content)
}

// Tree is a file system.
type Tree struct {
	root *File
}

// New returns a tree with an empty root folder.
func New() *Tree { return &Tree{root: newDir(0o755)} }

func newDir(mode fs.FileMode) *File {
	return &File{Mode: fs.ModeDir | mode, entries: map[string]*File{}}
}

// Root returns the root folder.
func (t *Tree) Root() *File { return t.root }

// split returns the components of a path.
func split(name string) []string {
	name = path.Clean("/" + name)
	if name == "/" {
		return nil
	}
	return strings.Split(name[1:], "/")
}

// resolve follows the components of a path, symbolic links included; one in the
// last component only if last is set. If make is set, missing folders before the
// last component are made. It returns the real path and the file there, which is
// nil when only the last component is missing.
func (t *Tree) resolve(name string, last, make bool, origin string) (string, *File, error) {
	todo := split(name)
	var done []string
	stack := []*File{t.root}
	links := 0
	for len(todo) > 0 {
		part := todo[0]
		todo = todo[1:]
		if part == ".." {
			if len(done) > 0 {
				done, stack = done[:len(done)-1], stack[:len(stack)-1]
			}
			continue
		}
		dir := stack[len(stack)-1]
		if !dir.IsDir() {
			return "", nil, fmt.Errorf("%s: /%s is not a folder but comes from %s", name, strings.Join(done, "/"), dir.Origin)
		}
		f := dir.entries[part]
		if f == nil {
			if len(todo) == 0 {
				return "/" + strings.Join(append(done, part), "/"), nil, nil
			}
			if !make {
				return "", nil, fmt.Errorf("%s: %w", name, ErrNotFound)
			}
			f = newDir(0o755)
			f.Origin = origin
			dir.entries[part] = f
		}
		if f.Mode&fs.ModeSymlink != 0 && (last || len(todo) > 0) {
			if links++; links > maxLinks {
				return "", nil, fmt.Errorf("%s: more than %d symbolic links", name, maxLinks)
			}
			if path.IsAbs(f.Target) {
				done, stack = nil, stack[:1]
			}
			// Not path.Clean: "a/.." is not "." when a is a link.
			var parts []string
			for p := range strings.SplitSeq(f.Target, "/") {
				if p != "" && p != "." {
					parts = append(parts, p)
				}
			}
			todo = append(parts, todo...)
			continue
		}
		done, stack = append(done, part), append(stack, f)
	}
	return "/" + strings.Join(done, "/"), stack[len(stack)-1], nil
}

// Get returns the file at a path; a symbolic link there is followed.
func (t *Tree) Get(name string) (*File, error) {
	_, f, err := t.resolve(name, true, false, "")
	if err == nil && f == nil {
		err = fmt.Errorf("%s: %w", name, ErrNotFound)
	}
	return f, err
}

// Find returns the file at a path without following a symbolic link there, or nil.
func (t *Tree) Find(name string) *File {
	_, f, err := t.resolve(name, false, false, "")
	if err != nil {
		return nil
	}
	return f
}

// place returns the folder and the name where a path ends, making missing folders.
func (t *Tree) place(name, origin string) (dir *File, base string, err error) {
	parts := split(name)
	if len(parts) == 0 {
		return nil, "", errors.New("cannot replace the root of the tree")
	}
	base = parts[len(parts)-1]
	real, dir, err := t.resolve(path.Dir("/"+strings.Join(parts, "/")), true, true, origin)
	if err != nil {
		return nil, "", err
	}
	if dir == nil { // the last folder is missing
		dir = newDir(0o755)
		dir.Origin = origin
		if err := t.Add(real, dir); err != nil {
			return nil, "", err
		}
	}
	if !dir.IsDir() {
		return nil, "", fmt.Errorf("%s: %s is not a folder but comes from %s", name, real, dir.Origin)
	}
	return dir, base, nil
}

// Add puts a file at a path. A folder that is there already is kept, and so is an
// identical file; another file is a conflict.
func (t *Tree) Add(name string, f *File) error {
	if f.Mode&fs.ModeSocket != 0 {
		return fmt.Errorf("cannot add %s of %s: a socket", name, f.Origin)
	}
	if f.IsDir() && f.entries == nil {
		f.entries = map[string]*File{}
	}
	if len(split(name)) == 0 && f.IsDir() {
		return nil
	}
	dir, base, err := t.place(name, f.Origin)
	if err != nil {
		return fmt.Errorf("cannot add file of %s: %w", f.Origin, err)
	}
	old := dir.entries[base]
	switch {
	case old == nil:
		dir.entries[base] = f
		return nil
	case f.IsDir():
		// A folder where a link to a folder is (/bin of a package) is that folder.
		if target, err := t.Get(name); err == nil && target.IsDir() {
			return nil
		}
	case old.same(f):
		return nil
	}
	return fmt.Errorf("cannot add %s of %s: it is also in %s", name, f.Origin, old.Origin)
}

// Replace puts a file at a path whatever is there, except a folder that is not empty.
func (t *Tree) Replace(name string, f *File) error {
	if old := t.Find(name); old != nil {
		if old.IsDir() && len(old.entries) > 0 {
			return fmt.Errorf("cannot replace %s: it is a folder of %s and not empty", name, old.Origin)
		}
		dir, base, err := t.place(name, f.Origin)
		if err != nil {
			return fmt.Errorf("cannot replace file: %w", err)
		}
		delete(dir.entries, base)
	}
	return t.Add(name, f)
}

// Link makes a hard link; a symbolic link at old is not followed.
func (t *Tree) Link(name, old, origin string) error {
	f := t.Find(old)
	if f == nil || f.IsDir() {
		return fmt.Errorf("cannot link %s of %s: %s: %w", name, origin, old, ErrNotFound)
	}
	return t.Add(name, f)
}

// Dir makes a folder, and sets the mode and owner of one that exists.
func (t *Tree) Dir(name string, mode fs.FileMode, uid, gid int, origin string) error {
	d := newDir(mode)
	d.UID, d.GID, d.Origin = uid, gid, origin
	if err := t.Add(name, d); err != nil {
		return err
	}
	d, err := t.Get(name)
	if err != nil {
		return err
	}
	d.Mode, d.UID, d.GID = fs.ModeDir|mode, uid, gid
	return nil
}

// Remove takes a path out of the tree, with what is below it; a missing one is ignored.
func (t *Tree) Remove(name string) {
	real, f, err := t.resolve(name, false, false, "")
	if err != nil || f == nil || f == t.root {
		return
	}
	dir, base, err := t.place(real, "")
	if err != nil {
		return
	}
	delete(dir.entries, base)
}

// Walk calls visit for every path in the order of their bytes, folders before
// their content, the root ("/") first.
func (t *Tree) Walk(visit func(name string, f *File) error) error {
	var descend func(name string, f *File) error
	descend = func(name string, f *File) error {
		if err := visit(name, f); err != nil {
			return err
		}
		for _, base := range f.Names() {
			if err := descend(path.Join(name, base), f.entries[base]); err != nil {
				return err
			}
		}
		return nil
	}
	return descend("/", t.root)
}

// Graft puts another tree at a path, sharing its files. What it holds must not exist there.
func (t *Tree) Graft(name string, other *Tree) error {
	return other.Walk(func(below string, f *File) error {
		if f.IsDir() {
			return t.Dir(path.Join(name, below), f.Mode&^fs.ModeType, f.UID, f.GID, f.Origin)
		}
		return t.Add(path.Join(name, below), f)
	})
}

// Dedupe makes hard links of regular files that are the same in content, owner,
// mode and attributes, so that writers store them once. It returns the bytes saved.
func (t *Tree) Dedupe(minimum int) (saved int64) {
	type key struct {
		sum  [sha256.Size]byte
		mode fs.FileMode
	}
	seen := map[key]*File{}
	t.Walk(func(_ string, dir *File) error {
		for _, base := range dir.Names() {
			f := dir.entries[base]
			if !f.Mode.IsRegular() || len(f.Content) < minimum {
				continue
			}
			k := key{sha256.Sum256(f.Content), f.Mode}
			switch first := seen[k]; {
			case first == nil:
				seen[k] = f
			case first != f && first.same(f):
				dir.entries[base] = first
				saved += int64(len(f.Content))
			}
		}
		return nil
	})
	return saved
}

// Size returns the bytes of all regular files, hard links counted once.
func (t *Tree) Size() (total int64) {
	for _, size := range t.Origins() {
		total += size
	}
	return total
}

// Origins returns the bytes of regular files by where they come from, hard links
// counted once.
func (t *Tree) Origins() map[string]int64 {
	sizes := map[string]int64{}
	seen := map[*File]bool{}
	t.Walk(func(_ string, f *File) error {
		if !seen[f] && len(f.Content) > 0 {
			seen[f] = true
			sizes[f.Origin] += int64(len(f.Content))
		}
		return nil
	})
	return sizes
}

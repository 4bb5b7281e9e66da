package images

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// imageRoot is the root folder of a mounted image. Names are absolute, as a process of
// the image would give them; links are followed as in the image, absolute ones from
// its root. Whatever the image holds, nothing outside is read or written: every access
// is made below root with a path free of links.
type imageRoot struct{ root *os.Root }

const (
	maxLinks = 40      // as the kernel's limit
	maxText  = 1 << 20 // of a file of an image that is read
)

func openRoot(dir string) (*imageRoot, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &imageRoot{root}, nil
}

// resolve returns the path below root, without links, that a name leads to. With
// follow the last part is followed too. Parts that do not exist are kept.
func (r *imageRoot) resolve(name string, follow bool) (string, error) {
	todo := strings.Split(name, "/")
	done := "."
	for links := 0; len(todo) > 0; {
		part := todo[0]
		todo = todo[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			done = path.Dir(done) // of "." it is "."
			continue
		}
		next := path.Join(done, part)
		info, err := r.root.Lstat(next)
		if errors.Is(err, fs.ErrNotExist) || err == nil && info.Mode()&fs.ModeSymlink == 0 || len(todo) == 0 && !follow {
			done = next
			continue
		}
		if err != nil {
			return "", err
		}
		if links++; links > maxLinks {
			return "", &fs.PathError{Op: "follow", Path: name, Err: unix.ELOOP}
		}
		target, err := r.root.Readlink(next)
		if err != nil {
			return "", err
		}
		if path.IsAbs(target) {
			done = "."
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	return done, nil
}

// exists tells whether a name leads to something.
func (r *imageRoot) exists(name string) bool {
	p, err := r.resolve(name, true)
	if err == nil {
		_, err = r.root.Lstat(p)
	}
	return err == nil
}

// lstat looks at a name without following its last part.
func (r *imageRoot) lstat(name string) (fs.FileInfo, error) {
	p, err := r.resolve(name, false)
	if err != nil {
		return nil, err
	}
	return r.root.Lstat(p)
}

// read reads a regular file of bounded size.
func (r *imageRoot) read(name string) ([]byte, error) {
	p, err := r.resolve(name, true)
	if err != nil {
		return nil, err
	}
	return r.readResolved(p, maxText)
}

func (r *imageRoot) readResolved(p string, limit int64) ([]byte, error) {
	f, err := r.root.OpenFile(p, os.O_RDONLY|unix.O_NONBLOCK, 0) // of a pipe it would wait
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > limit {
		return nil, &fs.PathError{Op: "read", Path: p, Err: errors.New("not a regular file of reasonable size")}
	}
	return io.ReadAll(io.LimitReader(f, limit))
}

// folder returns the resolved path of a folder, made if it is missing.
func (r *imageRoot) folder(name string) (string, error) {
	p, err := r.resolve(name, true)
	if err != nil {
		return "", err
	}
	return p, r.root.MkdirAll(p, 0o755)
}

// place returns the resolved path of a name whose last part is to be replaced.
func (r *imageRoot) place(name string) (string, error) {
	dir, err := r.folder(path.Dir(name))
	if err != nil {
		return "", err
	}
	return path.Join(dir, path.Base(name)), nil
}

// temporary is the name of a file being written.
const temporary = ".walt-new"

// write makes a regular file of a name, replacing a file or link, unless it is there
// already with that content and mode.
func (r *imageRoot) write(name string, content []byte, mode fs.FileMode) error {
	p, err := r.place(name)
	if err != nil {
		return err
	}
	info, err := r.root.Lstat(p)
	if err == nil && info.IsDir() {
		return &fs.PathError{Op: "write", Path: name, Err: unix.EISDIR}
	}
	if err == nil && info.Mode() == mode && info.Size() == int64(len(content)) {
		old, err := r.readResolved(p, info.Size())
		if err == nil && bytes.Equal(old, content) {
			return nil
		}
	}
	draft := path.Join(path.Dir(p), temporary)
	if err := r.root.RemoveAll(draft); err != nil {
		return err
	}
	f, err := r.root.OpenFile(draft, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Chmod(mode), f.Close()); err == nil {
		err = r.root.Rename(draft, p)
	}
	if err != nil {
		return errors.Join(err, r.root.RemoveAll(draft))
	}
	return nil
}

// link makes a symbolic link of a name, replacing a file or link.
func (r *imageRoot) link(name, target string) error {
	p, err := r.place(name)
	if err != nil {
		return err
	}
	return r.linkResolved(p, target)
}

func (r *imageRoot) linkResolved(p, target string) error {
	if old, err := r.root.Readlink(p); err == nil && old == target {
		return nil
	}
	if info, err := r.root.Lstat(p); err == nil && info.IsDir() {
		return &fs.PathError{Op: "link", Path: p, Err: unix.EISDIR}
	}
	draft := path.Join(path.Dir(p), temporary)
	if err := r.root.RemoveAll(draft); err != nil {
		return err
	}
	if err := r.root.Symlink(target, draft); err != nil {
		return err
	}
	return r.root.Rename(draft, p)
}

// remove deletes a file or link, if it is there.
func (r *imageRoot) remove(name string) error {
	p, err := r.resolve(name, false)
	if err != nil {
		return err
	}
	if err := r.root.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// relativeLinks makes the absolute links below a folder relative, so that they lead to
// the same files when they are followed from outside the image.
func (r *imageRoot) relativeLinks(name string) error {
	top, err := r.resolve(name, true)
	if err != nil {
		return err
	}
	return fs.WalkDir(r.root.FS(), top, func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && p == top {
			return fs.SkipAll
		}
		if err != nil || d.Type()&fs.ModeSymlink == 0 {
			return err
		}
		target, err := r.root.Readlink(p)
		if err != nil || !path.IsAbs(target) {
			return err
		}
		final, err := r.resolve(target, true)
		if err != nil {
			return fmt.Errorf("link /%s: %w", p, err)
		}
		return r.linkResolved(p, relative(path.Dir(p), final))
	})
}

// relative returns the way from a folder to a file, both paths below the same root.
func relative(dir, file string) string {
	split := func(p string) []string {
		if p == "." {
			return nil
		}
		return strings.Split(p, "/")
	}
	from, to := split(dir), split(file)
	for len(from) > 0 && len(to) > 0 && from[0] == to[0] {
		from, to = from[1:], to[1:]
	}
	var parts []string
	for range from {
		parts = append(parts, "..")
	}
	if parts = append(parts, to...); len(parts) == 0 {
		return "."
	}
	return strings.Join(parts, "/")
}

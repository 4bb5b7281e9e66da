// Package bootfile opens the files that a node may fetch while it boots: those of
// the boot directory of its image, node-protocols 1.3 to 1.5. A name never leaves the
// boot directory by itself; a symbolic link may lead anywhere in the same image, and
// is followed as the image would follow it when running (absolute links start at the
// root of the image), so that no link reaches a file of the server. Only regular
// files are opened: asking for a device or a pipe has no side effect.
package bootfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrEscape refuses a name that leads out of the boot directory.
var ErrEscape = errors.New("the name leads out of the boot directory")

// ErrNotRegular refuses a directory, device, pipe or socket.
var ErrNotRegular = errors.New("not a regular file")

// maxName bounds a requested name, as Linux does.
const maxName = 4096

// Open opens name, a slash-separated path relative to dir, which is a directory at
// or below root. Leading slashes of name make no difference. The errors are
// ErrEscape, ErrNotRegular and those of package fs.
func Open(root, dir, name string) (*os.File, fs.FileInfo, error) {
	rel, err := filepath.Rel(root, dir)
	if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		return nil, nil, fmt.Errorf("cannot open boot file: %s is not inside %s", dir, root)
	}
	name, err = Clean(name)
	if err != nil {
		return nil, nil, err
	}
	f, err := openIn(root, path.Join(rel, name))
	if err != nil {
		return nil, nil, &fs.PathError{Op: "open", Path: path.Join(dir, name), Err: err}
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

// Clean returns the shortest form of a requested name: relative, without "." or
// "..", or ErrEscape.
func Clean(name string) (string, error) {
	if len(name) > maxName || strings.ContainsRune(name, 0) {
		return "", fs.ErrInvalid
	}
	name = path.Clean(strings.TrimLeft(name, "/"))
	if name == ".." || strings.HasPrefix(name, "../") {
		return "", ErrEscape
	}
	return name, nil
}

// openIn resolves name with root as the root directory, and opens what it finds if
// that is a regular file.
func openIn(root, name string) (*os.File, error) {
	base, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(base)
	how := &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	var place int
	// EAGAIN: something was renamed while a link with ".." was followed.
	for range 8 {
		if place, err = unix.Openat2(base, name, how); !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	defer unix.Close(place)
	// The file is found but not open: no driver has been called so far.
	var stat unix.Stat_t
	if err := unix.Fstat(place, &stat); err != nil {
		return nil, err
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, ErrNotRegular
	}
	return os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", place), os.O_RDONLY, 0)
}

package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/waltos/waltos/hcl"
	"golang.org/x/sys/unix"
)

const harmless = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC

// tree is a piece of the file systems that is not attached yet.
type tree struct {
	Place
	fd     int
	folder bool
}

// openTree takes a copy of the mounts at a path and below, as they are now.
func openTree(p Place) (tree, error) {
	path, err := filepath.EvalSymlinks(p.Path)
	if err != nil {
		return tree{}, fmt.Errorf("cannot %s %s: %w", p.Access, p.Path, errors.Unwrap(err))
	}
	t := tree{Place: p}
	t.Path = path
	info, err := os.Stat(path)
	if err == nil {
		t.folder = info.IsDir()
		t.fd, err = unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	}
	if err != nil {
		return tree{}, fmt.Errorf("cannot %s %s: %w", p.Access, p.Path, err)
	}
	return t, nil
}

// set changes the attributes of the tree, alone or (AT_RECURSIVE) with all mounts in it.
func (t tree) set(flags uint, attributes, cleared uint64) error {
	err := unix.MountSetattr(t.fd, "", flags|unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: attributes, Attr_clr: cleared})
	if err != nil {
		return fmt.Errorf("cannot protect %s: %w", t.Path, err)
	}
	return nil
}

// attach puts the tree at its path, and closes it.
func (t tree) attach() error {
	defer unix.Close(t.fd)
	return t.move()
}

// move puts the tree at its path.
func (t tree) move() error {
	if err := unix.MoveMount(t.fd, "", unix.AT_FDCWD, t.Path, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("cannot mount on %s: %w", t.Path, err)
	}
	return nil
}

// enterView gives the calling thread, which has a mount namespace of its own, the view of a
// sandbox. The mounts of the machine that come later are in it too.
func enterView(s *hcl.Sandbox, own []string) error {
	places := View(s, own)
	var trees []tree
	open := func(which func(Access) bool) error {
		for _, p := range places {
			if !which(p.Access) {
				continue
			}
			t, err := openTree(p)
			if err != nil {
				return err
			}
			trees = append(trees, t)
		}
		return nil
	}
	// Copies that are made now are the machine's own, also for mounts; later ones follow it.
	if err := open(func(a Access) bool { return a == Mountable }); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("cannot part with the mounts of the machine: %w", err)
	}
	if err := open(func(a Access) bool { return a == Readable || a == Writable }); err != nil {
		return err
	}
	readOnly := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(unix.AT_FDCWD, "/", unix.AT_RECURSIVE, readOnly); err != nil {
		return fmt.Errorf("cannot make the root read-only: %w", err)
	}
	fresh, err := openScratch()
	if err != nil {
		return err
	}
	defer fresh.close()
	// What is above is there before what is below.
	layers := []layer{
		{"/dev", func() error { return fresh.devices(s.Devices) }},
		{"/proc", func() error { return mountProc(s.Proc) }},
	}
	for _, p := range places {
		if p.Access == Hidden {
			layers = append(layers, layer{p.Path, func() error { return fresh.hide(p.Path) }})
		}
	}
	for _, path := range temporary {
		layers = append(layers, layer{path, func() error { return fresh.attach(path, 0o1777, harmless) }})
	}
	for _, t := range trees {
		layers = append(layers, layer{t.Path, t.place})
	}
	slices.SortStableFunc(layers, func(a, b layer) int { return strings.Compare(a.path, b.path) })
	for _, l := range layers {
		if err := l.mount(); err != nil {
			return err
		}
	}
	return fresh.protect()
}

// layer is something to mount at a path.
type layer struct {
	path  string
	mount func() error
}

// place attaches a tree of the machine as its access asks for.
func (t tree) place() error {
	var err error
	switch t.Access {
	case Readable:
		err = t.set(unix.AT_RECURSIVE, unix.MOUNT_ATTR_RDONLY, 0)
	case Writable:
		err = t.set(unix.AT_RECURSIVE, harmless, unix.MOUNT_ATTR_RDONLY)
	case Mountable: // mounts in it are left to whom they are for
		err = t.set(0, harmless, unix.MOUNT_ATTR_RDONLY)
	}
	if err != nil {
		return err
	}
	if err := makeMountPoint(t.Path, t.folder); err != nil {
		return err
	}
	return t.attach()
}

// makeMountPoint makes a mount point in a hidden folder; elsewhere it is there.
func makeMountPoint(path string, folder bool) error {
	if _, err := os.Lstat(path); err == nil {
		return nil
	}
	parent := path
	if !folder {
		parent = filepath.Dir(path)
	}
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return fmt.Errorf("cannot make mount point: %w", err)
	}
	if folder {
		return nil
	}
	if err := os.WriteFile(path, nil, 0o444); err != nil {
		return fmt.Errorf("cannot make mount point: %w", err)
	}
	return nil
}

// mountProc mounts a /proc without the processes of others.
func mountProc(what string) error {
	if what == "machine" {
		return nil
	}
	options := [][2]string{{"hidepid", "ptraceable"}}
	if what == "processes" {
		options = append(options, [2]string{"subset", "pid"})
	}
	fd, err := mountNew("proc", options, harmless|unix.MOUNT_ATTR_RDONLY)
	if err != nil {
		return err
	}
	return tree{Place: Place{Path: "/proc"}, fd: fd}.attach()
}

// mountNew makes a file system, attached nowhere.
func mountNew(kind string, options [][2]string, attributes int) (fd int, err error) {
	context, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("cannot make a file system %s: %w", kind, err)
	}
	defer unix.Close(context)
	for _, o := range options {
		if err := unix.FsconfigSetString(context, o[0], o[1]); err != nil {
			return -1, fmt.Errorf("cannot make a file system %s with %s=%s: %w", kind, o[0], o[1], err)
		}
	}
	if err := unix.FsconfigCreate(context); err != nil {
		return -1, fmt.Errorf("cannot make a file system %s: %w", kind, err)
	}
	if fd, err = unix.Fsmount(context, unix.FSMOUNT_CLOEXEC, attributes); err != nil {
		return -1, fmt.Errorf("cannot make a file system %s: %w", kind, err)
	}
	return fd, nil
}

package images

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// unpacking writes the archive of a layer as a folder of an overlay (OCI image layer
// specification; kernel documentation of overlayfs): what the layer deletes becomes a
// device of number 0, or an attribute of its folder. It needs root. Whatever the archive
// holds, nothing outside of the folder is touched: each entry is made in a folder that was
// opened below the root, without following a link.
type unpacking struct {
	root   *os.Root
	uids   map[int]bool
	gids   map[int]bool
	dir    *os.File // the folder of the last entry
	name   string   // its path
	times  []folderTime
	buffer []byte
}

// folderTime is when a folder was changed, which is set when all is in it.
type folderTime struct {
	path string
	time time.Time
}

const (
	whiteout       = ".wh."
	opaqueWhiteout = ".wh..wh..opq"
)

func newUnpacking(dir string) (*unpacking, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &unpacking{root: root, uids: map[int]bool{}, gids: map[int]bool{}, buffer: make([]byte, 256<<10)}, nil
}

func (u *unpacking) close() {
	u.leave()
	u.root.Close()
}

func (u *unpacking) leave() {
	if u.dir != nil {
		u.dir.Close()
		u.dir = nil
	}
}

// unpack reads the archive to its end.
func (u *unpacking) unpack(archive io.Reader) error {
	r := tar.NewReader(archive)
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if err := u.entry(h, r); err != nil {
			return fmt.Errorf("entry %.200q: %w", h.Name, err)
		}
	}
	u.leave()
	for i := len(u.times) - 1; i >= 0; i-- { // what is inside first
		if err := u.root.Chtimes(u.times[i].path, u.times[i].time, u.times[i].time); err != nil {
			return err
		}
	}
	return nil
}

// local makes a name of the archive one below its root; "." is the root itself.
func local(name string) (string, error) {
	cleaned := strings.TrimPrefix(path.Clean("/"+name), "/")
	if cleaned == "" {
		return ".", nil
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "", errors.New("it leads elsewhere")
		}
	}
	return cleaned, nil
}

// enter opens the folder of an entry, made if it is missing.
func (u *unpacking) enter(name string) (fd int, err error) {
	if u.dir != nil && u.name == name {
		return int(u.dir.Fd()), nil
	}
	u.leave()
	u.name = name
	const flags = os.O_RDONLY | unix.O_DIRECTORY
	if u.dir, err = u.root.OpenFile(name, flags, 0); errors.Is(err, os.ErrNotExist) {
		if err = u.root.MkdirAll(name, 0o755); err == nil {
			u.dir, err = u.root.OpenFile(name, flags, 0)
		}
	}
	if err != nil {
		u.dir = nil
		return 0, err
	}
	return int(u.dir.Fd()), nil
}

func (u *unpacking) entry(h *tar.Header, content io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	for record := range h.PAXRecords {
		if strings.HasPrefix(record, "GNU.sparse.") {
			return errors.New("it is sparse, and might be as large as it likes")
		}
	}
	name, err := local(h.Name)
	if err != nil {
		return err
	}
	if name == "." {
		return u.describeRoot(h)
	}
	dir, err := u.enter(path.Dir(name))
	if err != nil {
		return err
	}
	base := path.Base(name)
	if base == opaqueWhiteout {
		return unix.Fsetxattr(dir, "trusted.overlay.opaque", []byte("y"), 0)
	}
	if hidden, ok := strings.CutPrefix(base, whiteout); ok {
		if strings.HasPrefix(hidden, whiteout) {
			return nil // of the file system aufs
		}
		if hidden == "" || hidden == "." || hidden == ".." {
			return errors.New("it deletes no file")
		}
		return u.hide(dir, path.Join(path.Dir(name), hidden))
	}
	if err := u.make(dir, base, name, h, content); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeLink {
		return nil // all else is that of what it is a name of
	}
	return u.describe(dir, base, name, h)
}

// hide makes the sign that something of the layers below is deleted.
func (u *unpacking) hide(dir int, name string) error {
	if err := u.root.RemoveAll(name); err != nil {
		return err
	}
	return unix.Mknodat(dir, path.Base(name), unix.S_IFCHR, 0)
}

// make makes an entry; one of the same name that was before it goes, unless both are
// folders.
func (u *unpacking) make(dir int, base, name string, h *tar.Header, content io.Reader) error {
	var old unix.Stat_t
	switch err := unix.Fstatat(dir, base, &old, unix.AT_SYMLINK_NOFOLLOW); {
	case err == nil && old.Mode&unix.S_IFMT == unix.S_IFDIR && h.Typeflag == tar.TypeDir:
		return nil
	case err == nil:
		if err := u.root.RemoveAll(name); err != nil {
			return err
		}
	case !errors.Is(err, unix.ENOENT):
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return unix.Mkdirat(dir, base, 0o700)
	case tar.TypeReg:
		fd, err := unix.Openat(dir, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), name)
		_, err = io.CopyBuffer(struct{ io.Writer }{f}, content, u.buffer)
		return errors.Join(err, f.Close())
	case tar.TypeSymlink:
		return unix.Symlinkat(h.Linkname, dir, base)
	case tar.TypeLink:
		target, err := local(h.Linkname)
		if err != nil {
			return err
		}
		return u.root.Link(target, name)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		kind := map[byte]uint32{tar.TypeChar: unix.S_IFCHR, tar.TypeBlock: unix.S_IFBLK, tar.TypeFifo: unix.S_IFIFO}[h.Typeflag]
		device := unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))
		if kind == unix.S_IFCHR && device == 0 {
			return errors.New("it is a device of number 0, which would delete a file")
		}
		return unix.Mknodat(dir, base, kind, int(device))
	}
	return fmt.Errorf("its type %q is not known", h.Typeflag)
}

// describe gives an entry its owner, mode, attributes and time.
func (u *unpacking) describe(dir int, base, name string, h *tar.Header) error {
	u.uids[h.Uid], u.gids[h.Gid] = true, true
	if err := unix.Fchownat(dir, base, h.Uid, h.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeSymlink {
		return setTime(dir, base, h.ModTime)
	}
	// The entry was just made here, and is no link.
	if err := unix.Fchmodat(dir, base, uint32(h.Mode)&0o7777, 0); err != nil {
		return err
	}
	if err := u.attributes(name, h); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeDir {
		u.times = append(u.times, folderTime{name, h.ModTime})
		return nil
	}
	return setTime(dir, base, h.ModTime)
}

func (u *unpacking) describeRoot(h *tar.Header) error {
	if h.Typeflag != tar.TypeDir {
		return errors.New("the root of an image is a folder")
	}
	dir, err := u.enter(".")
	if err != nil {
		return err
	}
	return u.describe(dir, ".", ".", h)
}

func setTime(dir int, base string, t time.Time) error {
	stamp := unix.NsecToTimespec(t.UnixNano())
	return unix.UtimesNanoAt(dir, base, []unix.Timespec{stamp, stamp}, unix.AT_SYMLINK_NOFOLLOW)
}

// xattrRecord is the prefix of extended attributes among the records of an entry.
const xattrRecord = "SCHILY.xattr."

// attributes sets extended attributes, but for those by which overlays work. A device is
// not opened for that.
func (u *unpacking) attributes(name string, h *tar.Header) error {
	if h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeDir {
		return nil
	}
	for record, value := range h.PAXRecords {
		attribute, ok := strings.CutPrefix(record, xattrRecord)
		if !ok || attribute != "security.capability" && !strings.HasPrefix(attribute, "system.posix_acl_") &&
			(!strings.HasPrefix(attribute, "user.") || strings.HasPrefix(attribute, "user.overlay.")) {
			continue
		}
		f, err := u.root.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		err = unix.Fsetxattr(int(f.Fd()), attribute, []byte(value), 0)
		f.Close()
		if err != nil && !errors.Is(err, unix.ENOTSUP) {
			return fmt.Errorf("attribute %s: %w", attribute, err)
		}
	}
	return nil
}

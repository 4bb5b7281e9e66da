package tree

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"
)

// xattrRecord begins the PAX records of extended attributes.
const xattrRecord = "SCHILY.xattr."

// maxFile bounds one file of an archive, because it is read into memory as a whole; up to
// usualFile, memory is taken at once: what a header says may not be there.
const (
	maxFile   = 1 << 30
	usualFile = 16 << 20
)

// Archive is an archive being read: a tar.Reader, or one that checks more.
type Archive interface {
	Next() (*tar.Header, error)
	io.Reader
}

// AddArchive adds what an archive holds. Names are relative to the root of the
// tree; those for which keep returns false are skipped, with the hard links to them.
// Times and owner names are dropped.
func (t *Tree) AddArchive(archive Archive, origin string, keep func(name string) bool) error {
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("cannot read %s: %w", origin, err)
		}
		name := "/" + strings.TrimPrefix(strings.TrimPrefix(h.Name, "."), "/")
		if !keep(name) {
			continue
		}
		f := &File{Mode: h.FileInfo().Mode(), UID: h.Uid, GID: h.Gid, Origin: origin}
		for key, value := range h.PAXRecords {
			if attribute, ok := strings.CutPrefix(key, xattrRecord); ok {
				if f.Xattrs == nil {
					f.Xattrs = map[string]string{}
				}
				f.Xattrs[attribute] = value
			}
		}
		switch h.Typeflag {
		case tar.TypeReg:
			if f.Content, err = readFile(archive, h.Size); err != nil {
				return fmt.Errorf("cannot read %s of %s: %w", name, origin, err)
			}
		case tar.TypeSymlink:
			f.Target = h.Linkname
		case tar.TypeChar, tar.TypeBlock:
			f.Device = [2]uint32{uint32(h.Devmajor), uint32(h.Devminor)}
		case tar.TypeLink:
			if !keep("/" + h.Linkname) {
				continue
			}
			if err := t.Link(name, h.Linkname, origin); err != nil {
				return err
			}
			continue
		case tar.TypeDir, tar.TypeFifo:
		default:
			return fmt.Errorf("cannot add %s of %s: type %q", name, origin, h.Typeflag)
		}
		if err := t.Add(name, f); err != nil {
			return err
		}
	}
}

func readFile(archive io.Reader, size int64) ([]byte, error) {
	if size > maxFile {
		return nil, fmt.Errorf("it has %d bytes, more than %d", size, maxFile)
	}
	content := bytes.NewBuffer(make([]byte, 0, min(size, usualFile)+bytes.MinRead))
	_, err := content.ReadFrom(archive)
	return content.Bytes(), err
}

// WriteTar writes the tree as a tar stream. Names are relative, without a leading
// "./"; the root itself has the name "./". All times are the given one.
func (t *Tree) WriteTar(w io.Writer, mtime time.Time) error {
	out := tar.NewWriter(w)
	first := map[*File]string{}
	err := t.Walk(func(name string, f *File) error {
		h := &tar.Header{
			Name: name[1:], Mode: posixMode(f.Mode), Uid: f.UID, Gid: f.GID, ModTime: mtime,
			Devmajor: int64(f.Device[0]), Devminor: int64(f.Device[1]),
		}
		for _, attribute := range slices.Sorted(maps.Keys(f.Xattrs)) {
			if h.PAXRecords == nil {
				h.PAXRecords = map[string]string{}
			}
			h.PAXRecords[xattrRecord+attribute] = f.Xattrs[attribute]
		}
		old, again := first[f]
		switch kind := f.Mode.Type(); {
		case f.IsDir():
			h.Typeflag, h.Name = tar.TypeDir, name[1:]+"/"
			if name == "/" {
				h.Name = "./"
			}
		case again:
			h.Typeflag, h.Linkname, h.PAXRecords = tar.TypeLink, old, nil
		case kind == 0:
			h.Typeflag, h.Size = tar.TypeReg, int64(len(f.Content))
		case kind == fs.ModeSymlink:
			h.Typeflag, h.Linkname = tar.TypeSymlink, f.Target
		case kind == fs.ModeNamedPipe:
			h.Typeflag = tar.TypeFifo
		case kind == fs.ModeDevice|fs.ModeCharDevice:
			h.Typeflag = tar.TypeChar
		case kind == fs.ModeDevice:
			h.Typeflag = tar.TypeBlock
		default:
			return fmt.Errorf("cannot archive %s: type %v", name, kind)
		}
		first[f] = name[1:]
		if err := out.WriteHeader(h); err != nil {
			return fmt.Errorf("cannot archive %s: %w", name, err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := out.Write(f.Content); err != nil {
				return fmt.Errorf("cannot archive %s: %w", name, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return out.Close()
}

// posixMode returns the permission bits as in a struct stat.
func posixMode(mode fs.FileMode) int64 {
	bits := int64(mode.Perm())
	for flag, bit := range map[fs.FileMode]int64{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if mode&flag != 0 {
			bits |= bit
		}
	}
	return bits
}

// StatMode returns the mode of a file as in a struct stat, type included.
func (f *File) StatMode() uint32 {
	bits := uint32(posixMode(f.Mode))
	switch f.Mode.Type() {
	case 0:
		return bits | 0o100000
	case fs.ModeDir:
		return bits | 0o040000
	case fs.ModeSymlink:
		return bits | 0o120000
	case fs.ModeNamedPipe:
		return bits | 0o010000
	case fs.ModeDevice | fs.ModeCharDevice:
		return bits | 0o020000
	default:
		return bits | 0o060000
	}
}

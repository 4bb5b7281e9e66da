// Package cpio writes a tree as the archive that Linux unpacks into its initial
// root file system.
//
// Specification: Linux Documentation/driver-api/early-userspace/buffer-format.rst,
// format "newc". Inode numbers count from 1 in path order, the device is 0 and all
// times are one given time, so that the same tree gives the same bytes. Extended
// attributes cannot be expressed and are refused, as are files of 4 GiB.
package cpio

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/waltos/waltos/image/tree"
)

// Write writes the tree. The content of hard links goes with the last name.
func Write(w io.Writer, t *tree.Tree, mtime time.Time) error {
	a := &archive{w: bufio.NewWriter(w), mtime: mtime.Unix()}
	names := map[*tree.File]int{}
	t.Walk(func(_ string, f *tree.File) error {
		names[f]++
		return nil
	})
	inodes, left := map[*tree.File]int{}, map[*tree.File]int{}
	err := t.Walk(func(name string, f *tree.File) error {
		if len(f.Xattrs) > 0 {
			return fmt.Errorf("%s has extended attributes", name)
		}
		if int64(len(f.Content)) > math.MaxUint32 {
			return fmt.Errorf("%s is larger than 4 GiB", name)
		}
		if inodes[f] == 0 {
			inodes[f], left[f] = len(inodes)+1, names[f]
		}
		left[f]--
		e := entry{name: name[1:], file: f, inode: inodes[f], links: names[f]}
		switch {
		case name == "/":
			e.name = "."
		case f.Target != "":
			e.content = []byte(f.Target)
		case left[f] == 0:
			e.content = f.Content
		}
		if f.IsDir() {
			e.links = 2
		}
		return a.write(e)
	})
	if err == nil {
		err = a.write(entry{name: "TRAILER!!!", file: &tree.File{}, links: 1, trailer: true})
	}
	if err == nil {
		err = a.w.Flush()
	}
	if err != nil {
		return fmt.Errorf("cannot write cpio archive: %w", err)
	}
	return nil
}

type entry struct {
	name         string
	file         *tree.File
	inode, links int
	content      []byte
	trailer      bool
}

type archive struct {
	w     *bufio.Writer
	mtime int64
	at    int64
}

func (a *archive) write(e entry) error {
	mode, mtime := e.file.StatMode(), a.mtime
	if e.trailer {
		mode, mtime = 0, 0
	}
	// magic, inode, mode, uid, gid, links, mtime, size, device, special file, name with its NUL, checksum
	header := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		e.inode, mode, e.file.UID, e.file.GID, e.links, mtime, len(e.content),
		0, 0, e.file.Device[0], e.file.Device[1], len(e.name)+1, 0)
	if err := a.padded([]byte(header + e.name + "\x00")); err != nil {
		return err
	}
	return a.padded(e.content)
}

// padded writes data and fills up to a multiple of four bytes.
func (a *archive) padded(data []byte) error {
	if _, err := a.w.Write(data); err != nil {
		return err
	}
	a.at += int64(len(data))
	fill := -a.at & 3
	a.at += fill
	_, err := a.w.Write(make([]byte, fill))
	return err
}

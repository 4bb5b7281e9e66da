package erofs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"time"
)

// Entry is an inode under one of its paths, as List finds it.
type Entry struct {
	Path     string // absolute
	Mode     fs.FileMode
	UID, GID int
	Size     int64
	Time     time.Time
	Target   string // of a symbolic link
	Device   uint32
	// Offset is where the inode begins in the image, Length how many bytes it and
	// its extended attributes take.
	Offset, Length int64
}

// Limits of what List accepts, far beyond any image of ours.
const (
	maxEntries = 1 << 20
	maxFolders = 256 << 20 // bytes of all folders and links together
	maxTarget  = 4096
	maxDepth   = 256
)

// The on-disk form (Linux fs/erofs/erofs_fs.h, all little endian).
const (
	superAt    = 1024
	superMagic = 0xe0f5e1e2

	direntSize = 12

	layoutPlain  = 0
	layoutInline = 2 // what is beyond whole blocks follows the inode
)

// List calls visit for every path of an image, folders before what is in them. File
// contents, which may be compressed, are not read. A damaged image gives an error.
func List(r io.ReaderAt, visit func(Entry) error) error {
	l := &lister{r: r, visit: visit}
	if err := l.list(); err != nil {
		return fmt.Errorf("cannot read EROFS image: %w", err)
	}
	return nil
}

type lister struct {
	r         io.ReaderAt
	visit     func(Entry) error
	blockSize int64
	meta      int64 // offset of inode 0
	built     time.Time
	entries   int
	folders   int64 // bytes read of folders and links
}

// inode is what an entry of a folder leads to.
type inode struct {
	Entry
	layout int
	raw    uint32 // first block, or device number
}

func (l *lister) list() error {
	super, err := l.read(superAt, 128)
	if err != nil {
		return err
	}
	le := binary.LittleEndian
	if magic := le.Uint32(super); magic != superMagic {
		return fmt.Errorf("magic number is %#x, not %#x", magic, uint32(superMagic))
	}
	bits := super[12]
	if bits < 9 || bits > 16 {
		return fmt.Errorf("blocks of 2^%d bytes", bits)
	}
	l.blockSize = 1 << bits
	l.meta = int64(le.Uint32(super[40:])) * l.blockSize
	l.built = time.Unix(int64(le.Uint64(super[24:])), int64(le.Uint32(super[32:]))).UTC()
	return l.walk("/", uint64(le.Uint16(super[14:])), 0)
}

func (l *lister) walk(name string, nid uint64, depth int) error {
	if l.entries++; l.entries > maxEntries {
		return fmt.Errorf("more than %d entries", maxEntries)
	}
	if depth > maxDepth {
		return fmt.Errorf("%s: folders nested deeper than %d", name, maxDepth)
	}
	node, err := l.inode(nid)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	node.Path = name
	if node.Mode&fs.ModeSymlink != 0 {
		if node.Size > maxTarget {
			return fmt.Errorf("%s: link of %d bytes", name, node.Size)
		}
		target, err := l.content(node)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		node.Target = string(target)
	}
	if err := l.visit(node.Entry); err != nil {
		return err
	}
	if !node.Mode.IsDir() {
		return nil
	}
	content, err := l.content(node)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for len(content) > 0 {
		block := content[:min(l.blockSize, int64(len(content)))]
		content = content[len(block):]
		if err := l.block(name, block, depth); err != nil {
			return err
		}
	}
	return nil
}

// block walks the entries of one block of a folder: headers first, then names, which
// end where the next one begins, the last at the end of the block or a NUL byte.
func (l *lister) block(folder string, block []byte, depth int) error {
	le := binary.LittleEndian
	if len(block) < direntSize {
		return fmt.Errorf("%s: block of %d bytes", folder, len(block))
	}
	first := int(le.Uint16(block[8:]))
	if first < direntSize || first%direntSize != 0 || first > len(block) {
		return fmt.Errorf("%s: names begin at %d", folder, first)
	}
	for at := 0; at < first; at += direntSize {
		from, to := int(le.Uint16(block[at+8:])), len(block)
		if at+direntSize < first {
			to = int(le.Uint16(block[at+direntSize+8:]))
		}
		if from < first || to <= from || to > len(block) {
			return fmt.Errorf("%s: a name from %d to %d", folder, from, to)
		}
		name := block[from:to]
		for i, c := range name {
			if c == 0 {
				name = name[:i]
				break
			}
			if c == '/' {
				return fmt.Errorf("%s: a name with a slash", folder)
			}
		}
		switch string(name) {
		case "":
			return fmt.Errorf("%s: an empty name", folder)
		case ".", "..":
			continue
		}
		if err := l.walk(path.Join(folder, string(name)), le.Uint64(block[at:]), depth+1); err != nil {
			return err
		}
	}
	return nil
}

// inode reads a compact (32 bytes) or extended (64 bytes) inode.
func (l *lister) inode(nid uint64) (*inode, error) {
	if nid > 1<<40 {
		return nil, fmt.Errorf("inode number %d", nid)
	}
	n := &inode{Entry: Entry{Offset: l.meta + int64(nid)*32, Length: 32, Time: l.built}}
	head, err := l.read(n.Offset, 32)
	if err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	format := le.Uint16(head)
	n.layout = int(format>>1) & 7
	n.Mode = fileMode(le.Uint16(head[4:]))
	n.raw = le.Uint32(head[16:])
	if format&1 == 0 {
		n.Size = int64(le.Uint32(head[8:]))
		n.UID, n.GID = int(le.Uint16(head[24:])), int(le.Uint16(head[26:]))
	} else {
		n.Length = 64
		if head, err = l.read(n.Offset, 64); err != nil {
			return nil, err
		}
		size := le.Uint64(head[8:])
		if size > 1<<48 {
			return nil, fmt.Errorf("size %d", size)
		}
		n.Size = int64(size)
		n.UID, n.GID = int(le.Uint32(head[24:])), int(le.Uint32(head[28:]))
		n.Time = time.Unix(int64(le.Uint64(head[32:])), int64(le.Uint32(head[40:]))).UTC()
	}
	if count := int64(le.Uint16(head[2:])); count > 0 {
		n.Length += 12 + 4*(count-1)
	}
	if n.Mode&fs.ModeDevice != 0 {
		n.Device, n.Size = n.raw, 0
	}
	return n, nil
}

// content reads what a folder or symbolic link holds.
func (l *lister) content(n *inode) ([]byte, error) {
	if n.Size > maxFolders || l.folders+n.Size > maxFolders {
		return nil, fmt.Errorf("folders and links take more than %d bytes", maxFolders)
	}
	l.folders += n.Size
	whole := n.Size
	switch n.layout {
	case layoutPlain:
	case layoutInline:
		whole = n.Size / l.blockSize * l.blockSize
	default:
		return nil, fmt.Errorf("data layout %d of a folder or link", n.layout)
	}
	content, err := l.read(int64(n.raw)*l.blockSize, whole)
	if err != nil || whole == n.Size {
		return content, err
	}
	tail, err := l.read(n.Offset+n.Length, n.Size-whole)
	return append(content, tail...), err
}

func (l *lister) read(at, size int64) ([]byte, error) {
	if size == 0 {
		return nil, nil
	}
	data := make([]byte, size)
	_, err := l.r.ReadAt(data, at)
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("%d bytes at %d are beyond its end", size, at)
	}
	return data, err
}

// fileMode converts st_mode of Linux.
func fileMode(mode uint16) fs.FileMode {
	m := fs.FileMode(mode & 0o777)
	for bit, flag := range map[uint16]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if mode&bit != 0 {
			m |= flag
		}
	}
	switch mode & 0o170000 {
	case 0o040000:
		m |= fs.ModeDir
	case 0o120000:
		m |= fs.ModeSymlink
	case 0o020000:
		m |= fs.ModeDevice | fs.ModeCharDevice
	case 0o060000:
		m |= fs.ModeDevice
	case 0o010000:
		m |= fs.ModeNamedPipe
	case 0o140000:
		m |= fs.ModeSocket
	case 0o100000:
	default:
		m |= fs.ModeIrregular
	}
	return m
}

// Size returns the length in bytes of the image that a partition begins with.
func Size(r io.ReaderAt) (int64, error) {
	l := &lister{r: r}
	super, err := l.read(superAt, 128)
	if err != nil {
		return 0, fmt.Errorf("cannot read EROFS image: %w", err)
	}
	if bits := super[12]; bits < 9 || bits > 16 {
		return 0, fmt.Errorf("cannot read EROFS image: blocks of 2^%d bytes", bits)
	}
	return int64(binary.LittleEndian.Uint32(super[36:])) << super[12], nil
}

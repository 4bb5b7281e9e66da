// Package fat writes a FAT32 file system with the content of a tree: the EFI
// system partition.
//
// Specification: Microsoft FAT32 File System Specification 1.03, with long names
// (VFAT). Written once, in path order, without fragmentation, with a given
// identifier and one time for everything, so that the same tree gives the same
// bytes. Owners and modes cannot be expressed and are dropped; links and devices
// are refused, as are names that differ only in case.
package fat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"
	"unicode/utf16"

	"github.com/waltos/waltos/image/tree"
)

const (
	sectorSize = 512
	reserved   = 32 // sectors before the first FAT
	infoSector = 1
	backupBoot = 6
	fats       = 2
	// minClusters makes a file system FAT32 (a fixed rule of the specification).
	minClusters = 65525
	maxClusters = 0x0ffffff5
	endOfChain  = 0x0fffffff
	media       = 0xf8
	entrySize   = 32

	attrFolder = 0x10
	attrVolume = 0x08
	attrFile   = 0x20
	attrLong   = 0x0f
)

// Volume describes a file system.
type Volume struct {
	Size   int64  // bytes, a multiple of 512
	Label  string // at most 11 ASCII letters, digits, '-' or '_'
	ID     uint32 // serial number
	Time   time.Time
	Hidden uint32 // sectors before the partition on its disk
}

// layout is what the size decides.
type layout struct {
	sectors, perCluster, fatSectors, clusters uint32
}

func (l layout) clusterSize() int { return int(l.perCluster) * sectorSize }

func plan(size int64) (layout, error) {
	if size%sectorSize != 0 || size <= 0 || size/sectorSize > 1<<32-1 {
		return layout{}, fmt.Errorf("size %d is not a multiple of %d below 2 TiB", size, sectorSize)
	}
	// The largest clusters up to 4 KiB with which the volume is FAT32.
	for per := uint32(8); per > 0; per /= 2 {
		l := layout{sectors: uint32(size / sectorSize), perCluster: per}
		if l.sectors < reserved {
			break
		}
		// Each cluster takes its sectors and four bytes in each FAT; two entries are not clusters.
		l.fatSectors = uint32((uint64(l.sectors-reserved)/uint64(per)+2)*4/sectorSize + 1)
		if taken := reserved + fats*l.fatSectors; taken < l.sectors {
			l.clusters = (l.sectors - taken) / per
		}
		// A margin, because readers disagree by a few clusters about the limit.
		if l.clusters >= minClusters+16 && l.clusters < maxClusters {
			return l, nil
		}
	}
	return layout{}, fmt.Errorf("a volume of %d bytes cannot be FAT32", size)
}

// writer fills the data area, cluster by cluster.
type writer struct {
	out    io.WriterAt
	volume Volume
	layout layout
	fat    []uint32
	next   uint32 // first free cluster
}

// Write writes the volume at the start of w, which must read as zeroes.
func Write(w io.WriterAt, v Volume, t *tree.Tree) error {
	if err := write(w, v, t); err != nil {
		return fmt.Errorf("cannot write FAT volume: %w", err)
	}
	return nil
}

func write(out io.WriterAt, v Volume, t *tree.Tree) error {
	if len(v.Label) > 11 || strings.Trim(strings.ToUpper(v.Label), "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
		return fmt.Errorf("bad label %q", v.Label)
	}
	l, err := plan(v.Size)
	if err != nil {
		return err
	}
	w := &writer{out: out, volume: v, layout: l, next: 2}
	w.fat = make([]uint32, l.clusters+2)
	w.fat[0], w.fat[1] = 0x0fffff00|media, endOfChain
	if _, err := w.folder("/", t.Root(), t, 0); err != nil {
		return err
	}
	table := make([]byte, int(l.fatSectors)*sectorSize)
	for i, entry := range w.fat {
		binary.LittleEndian.PutUint32(table[4*i:], entry)
	}
	for i := range uint32(fats) {
		if err := w.write(table, reserved+i*l.fatSectors); err != nil {
			return err
		}
	}
	boot, info := w.bootSector(), w.infoSector()
	third := make([]byte, sectorSize) // of the boot code, empty but signed
	third[510], third[511] = 0x55, 0xaa
	for _, base := range []uint32{0, backupBoot} {
		for i, sector := range [][]byte{boot, info, third} {
			if err := w.write(sector, base+uint32(i)); err != nil {
				return err
			}
		}
	}
	// So that the file has its full size.
	return w.write(make([]byte, sectorSize), l.sectors-1)
}

func (w *writer) write(data []byte, sector uint32) error {
	_, err := w.out.WriteAt(data, int64(sector)*sectorSize)
	return err
}

// reserve takes a chain of clusters for size bytes and returns the first; 0 for none.
func (w *writer) reserve(size int) (uint32, error) {
	count := uint32((size + w.layout.clusterSize() - 1) / w.layout.clusterSize())
	if count == 0 {
		return 0, nil
	}
	first := w.next
	if count > w.layout.clusters+2-first {
		return 0, errors.New("the volume is full")
	}
	for i := first; i < first+count-1; i++ {
		w.fat[i] = i + 1
	}
	w.fat[first+count-1] = endOfChain
	w.next += count
	return first, nil
}

func (w *writer) put(cluster uint32, data []byte) error {
	return w.write(data, reserved+fats*w.layout.fatSectors+(cluster-2)*w.layout.perCluster)
}

// folder writes a folder with all below it, and returns its first cluster. The
// parent of the root and of the root's folders is written as 0.
func (w *writer) folder(name string, dir *tree.File, t *tree.Tree, parent uint32) (uint32, error) {
	root := name == "/"
	names := newNames()
	type child struct {
		file        *tree.File
		base, alias string
		long        []byte
	}
	var children []child
	size := 0
	if root && w.volume.Label != "" {
		size = entrySize
	} else if !root {
		size = 2 * entrySize
	}
	for _, base := range dir.Names() {
		f := t.Find(path.Join(name, base))
		if !f.IsDir() && !f.Mode.IsRegular() {
			return 0, fmt.Errorf("%s is a %v", path.Join(name, base), f.Mode.Type())
		}
		alias, err := names.alias(base)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", name, err)
		}
		c := child{f, base, alias, longEntries(base, alias)}
		children = append(children, c)
		size += len(c.long) + entrySize
	}
	at, err := w.reserve(max(size, 1)) // an empty folder has a cluster too
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	data := make([]byte, 0, (size+w.layout.clusterSize())/w.layout.clusterSize()*w.layout.clusterSize())
	if root && w.volume.Label != "" {
		data = w.entry(data, fmt.Sprintf("%-11s", strings.ToUpper(w.volume.Label)), attrVolume, 0, 0)
	} else if !root {
		data = w.entry(data, fmt.Sprintf("%-11s", "."), attrFolder, at, 0)
		data = w.entry(data, fmt.Sprintf("%-11s", ".."), attrFolder, parent, 0)
	}
	self := at
	if root {
		self = 0
	}
	for _, c := range children {
		data = append(data, c.long...)
		full := path.Join(name, c.base)
		if c.file.IsDir() {
			first, err := w.folder(full, c.file, t, self)
			if err != nil {
				return 0, err
			}
			data = w.entry(data, c.alias, attrFolder, first, 0)
			continue
		}
		if int64(len(c.file.Content)) > 1<<32-1 {
			return 0, fmt.Errorf("%s is larger than 4 GiB", full)
		}
		first, err := w.reserve(len(c.file.Content))
		if err != nil {
			return 0, fmt.Errorf("%s: %w", full, err)
		}
		if first != 0 {
			if err := w.put(first, c.file.Content); err != nil {
				return 0, err
			}
		}
		data = w.entry(data, c.alias, attrFile, first, uint32(len(c.file.Content)))
	}
	return at, w.put(at, data)
}

// entry appends a short directory entry.
func (w *writer) entry(data []byte, name string, attributes byte, cluster, size uint32) []byte {
	e := make([]byte, entrySize)
	copy(e, name)
	e[11] = attributes
	t := w.volume.Time.UTC()
	clock := uint16(t.Hour()<<11 | t.Minute()<<5 | t.Second()/2)
	date := uint16(max(t.Year()-1980, 0)<<9 | int(t.Month())<<5 | t.Day())
	le := binary.LittleEndian
	le.PutUint16(e[14:], clock) // created
	le.PutUint16(e[16:], date)
	le.PutUint16(e[18:], date) // accessed
	le.PutUint16(e[22:], clock)
	le.PutUint16(e[24:], date)
	le.PutUint16(e[20:], uint16(cluster>>16))
	le.PutUint16(e[26:], uint16(cluster))
	le.PutUint32(e[28:], size)
	return append(data, e...)
}

func (w *writer) bootSector() []byte {
	b := make([]byte, sectorSize)
	le := binary.LittleEndian
	copy(b, []byte{0xeb, 0x58, 0x90})
	copy(b[3:], "WALT    ")
	le.PutUint16(b[11:], sectorSize)
	b[13] = byte(w.layout.perCluster)
	le.PutUint16(b[14:], reserved)
	b[16] = fats
	b[21] = media
	le.PutUint16(b[24:], 32) // sectors per track and heads: unused, but checked by some
	le.PutUint16(b[26:], 64)
	le.PutUint32(b[28:], w.volume.Hidden)
	le.PutUint32(b[32:], w.layout.sectors)
	le.PutUint32(b[36:], w.layout.fatSectors)
	le.PutUint32(b[44:], 2) // cluster of the root
	le.PutUint16(b[48:], infoSector)
	le.PutUint16(b[50:], backupBoot)
	b[64] = 0x80 // drive
	b[66] = 0x29 // the three fields that follow are present
	le.PutUint32(b[67:], w.volume.ID)
	label := w.volume.Label
	if label == "" {
		label = "NO NAME"
	}
	copy(b[71:], fmt.Sprintf("%-11s", strings.ToUpper(label)))
	copy(b[82:], "FAT32   ")
	copy(b[90:], []byte{0xf4, 0xeb, 0xfd}) // halt, if a BIOS ever runs it
	b[510], b[511] = 0x55, 0xaa
	return b
}

func (w *writer) infoSector() []byte {
	b := make([]byte, sectorSize)
	le := binary.LittleEndian
	le.PutUint32(b, 0x41615252)
	le.PutUint32(b[484:], 0x61417272)
	le.PutUint32(b[488:], w.layout.clusters+2-w.next)
	le.PutUint32(b[492:], w.next)
	le.PutUint32(b[508:], 0xaa550000)
	return b
}

// names gives the short aliases of one folder.
type names struct {
	taken  map[string]bool
	folded map[string]bool
}

func newNames() *names { return &names{map[string]bool{}, map[string]bool{}} }

// alias returns the 11 bytes of the short name of a file: its own name when that
// is a valid short name, else one with a number.
func (n *names) alias(name string) (string, error) {
	if strings.Trim(name, ". ") != name || strings.ContainsAny(name, "\\:*?\"<>|") || len(utf16.Encode([]rune(name))) > 255 {
		return "", fmt.Errorf("%q is not a valid name", name)
	}
	folded := strings.ToUpper(name)
	if n.folded[folded] {
		return "", fmt.Errorf("%q differs only in case from another name", name)
	}
	n.folded[folded] = true
	stem, extension, _ := cutLast(folded)
	stem, extension = shortLetters(stem), shortLetters(extension)
	if alias := fmt.Sprintf("%-8s%-3s", stem, extension); isShort(folded) && !n.taken[alias] {
		n.taken[alias] = true
		return alias, nil
	}
	for i := 1; i < 1e6; i++ {
		tail := fmt.Sprintf("~%d", i)
		alias := fmt.Sprintf("%-8s%-3.3s", stem[:min(len(stem), 8-len(tail))]+tail, extension)
		if !n.taken[alias] {
			n.taken[alias] = true
			return alias, nil
		}
	}
	return "", errors.New("too many similar names")
}

func cutLast(name string) (stem, extension string, found bool) {
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		return name[:i], name[i+1:], true
	}
	return name, "", false
}

func shortLetters(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '.' || r == ' ':
			return -1
		case r < 0x80 && (r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || strings.ContainsRune("$%'-_@~`!(){}^#&", r)):
			return r
		}
		return '_'
	}, s)
}

// isShort reports whether an upper-case name needs no number.
func isShort(name string) bool {
	stem, extension, _ := cutLast(name)
	return len(stem) <= 8 && len(extension) <= 3 && stem != "" && shortLetters(stem) == stem && shortLetters(extension) == extension
}

// longEntries returns the entries that hold a name which its alias does not give back.
func longEntries(name, alias string) []byte {
	short := strings.TrimRight(alias[:8], " ")
	if extension := strings.TrimRight(alias[8:], " "); extension != "" {
		short += "." + extension
	}
	if short == name {
		return nil
	}
	var sum byte
	for _, c := range []byte(alias) {
		sum = sum>>1 | sum<<7
		sum += c
	}
	units := utf16.Encode([]rune(name))
	const perEntry = 13
	count := (len(units) + perEntry - 1) / perEntry
	if len(units) < count*perEntry {
		units = append(units, 0)
	}
	for len(units) < count*perEntry {
		units = append(units, 0xffff)
	}
	var out []byte
	for i := count; i > 0; i-- {
		e := make([]byte, entrySize)
		e[0] = byte(i)
		if i == count {
			e[0] |= 0x40
		}
		e[11], e[13] = attrLong, sum
		for j, at := range []int{1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30} {
			binary.LittleEndian.PutUint16(e[at:], units[(i-1)*perEntry+j])
		}
		out = append(out, e...)
	}
	return out
}

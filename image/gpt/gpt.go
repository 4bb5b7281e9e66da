// Package gpt reads, changes and writes GUID partition tables: at build time
// that of the disk image, at first boot that of the disk which the image was
// written to (the data partition is added or grown there, and the backup table
// moves to the real end of the disk).
//
// Specification: UEFI 2.10, section 5.3. Sectors of 512 bytes and partition
// entries of 128 bytes only; a table with other sizes, with wrong checksums in
// both copies, or whose partitions overlap is refused. An MBR that is not
// protective (a hybrid one) is replaced by a protective one.
package gpt

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"unicode/utf16"
)

const (
	// SectorSize is the only size of sectors supported, in bytes.
	SectorSize = 512
	// Alignment of the partitions that Add makes, in bytes.
	Alignment = 1 << 20

	signature    = "EFI PART"
	revision     = 0x00010000
	headerSize   = 92
	entrySize    = 128
	entryCount   = 128
	arraySectors = entryCount * entrySize / SectorSize
	nameUnits    = 36
	maxEntries   = 1024 // of a table being read
)

// Partition types that this project uses.
var (
	EFISystem = MustGUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
	Linux     = MustGUID("0fc63daf-8483-4772-8e79-3d69d8477de4")
)

// ErrNoTable is returned by Read for a disk without any partition table.
var ErrNoTable = errors.New("no GUID partition table")

// Partition is one entry of a table.
type Partition struct {
	Name       string // at most 36 UTF-16 units
	Type, ID   GUID
	First      uint64 // first sector
	Last       uint64 // last sector, inclusive
	Attributes uint64
}

// Offset returns where the partition begins, in bytes.
func (p *Partition) Offset() int64 { return int64(p.First) * SectorSize }

// Size returns the length of the partition in bytes.
func (p *Partition) Size() int64 { return int64(p.Last-p.First+1) * SectorSize }

// Table is the partition table of one disk.
type Table struct {
	ID GUID // of the disk
	// Partitions by number: the first is partition 1. A nil element is an unused number.
	Partitions []*Partition

	sectors uint64
	// moved says that the copies on the disk are not both where, and what, Write would write.
	moved bool
}

// New returns an empty table for a disk of size bytes.
func New(size int64, id GUID) (*Table, error) {
	t := &Table{ID: id}
	return t, t.Resize(size)
}

// Resize adapts the table to a disk of size bytes, where Write will put the backup copy at the end.
func (t *Table) Resize(size int64) error {
	sectors := uint64(size) / SectorSize
	if size < 0 || sectors < 2*(arraySectors+1)+2 {
		return fmt.Errorf("cannot partition a disk of %d bytes: too small", size)
	}
	for _, p := range t.Partitions {
		if p != nil && p.Last > sectors-arraySectors-2 {
			return fmt.Errorf("cannot partition a disk of %d bytes: partition %q ends at byte %d", size, p.Name, p.Offset()+p.Size())
		}
	}
	t.moved = t.moved || t.sectors != sectors
	t.sectors = sectors
	return nil
}

// usable returns the first and last sectors that partitions may take.
func (t *Table) usable() (first, last uint64) {
	return arraySectors + 2, t.sectors - arraySectors - 2
}

// Stale reports whether the table on the disk that was read is incomplete or
// not at the ends of the disk, so that it must be written even if nothing else changes.
func (t *Table) Stale() bool { return t.moved }

// Find returns the number (from 1) of the partition of that name and the partition, or 0 and nil.
func (t *Table) Find(name string) (int, *Partition) {
	for i, p := range t.Partitions {
		if p != nil && p.Name == name {
			return i + 1, p
		}
	}
	return 0, nil
}

// Add makes a partition of size bytes after the last one of the table; size 0
// takes all the space there. Type and ID are those of p; its First and Last are set.
func (t *Table) Add(p *Partition, size int64) error {
	if n := len(utf16.Encode([]rune(p.Name))); n > nameUnits {
		return fmt.Errorf("cannot add partition %q: the name has %d UTF-16 units, more than %d", p.Name, n, nameUnits)
	}
	if _, other := t.Find(p.Name); other != nil {
		return fmt.Errorf("cannot add partition %q: there is one of that name", p.Name)
	}
	if size < 0 || size%SectorSize != 0 {
		return fmt.Errorf("cannot add partition %q: size %d is not a multiple of %d", p.Name, size, SectorSize)
	}
	first, last := t.usable()
	for _, other := range t.Partitions {
		if other != nil && other.Last >= first {
			first = other.Last + 1
		}
	}
	const step = Alignment / SectorSize
	first = (first + step - 1) / step * step
	if size == 0 {
		last = (last+1)/step*step - 1
	} else {
		end := first + uint64(size)/SectorSize - 1
		if end > last {
			return fmt.Errorf("cannot add partition %q of %d bytes: the disk ends at byte %d", p.Name, size, t.sectors*SectorSize)
		}
		last = end
	}
	if last < first || last == ^uint64(0) {
		return fmt.Errorf("cannot add partition %q: no space left on the disk", p.Name)
	}
	p.First, p.Last = first, last
	for i, other := range t.Partitions {
		if other == nil {
			t.Partitions[i] = p
			return nil
		}
	}
	if len(t.Partitions) >= entryCount {
		return fmt.Errorf("cannot add partition %q: there are %d already", p.Name, entryCount)
	}
	t.Partitions = append(t.Partitions, p)
	return nil
}

// Grow extends the partition of that name into the free space that follows it
// and reports whether it changed.
func (t *Table) Grow(name string) (bool, error) {
	_, p := t.Find(name)
	if p == nil {
		return false, fmt.Errorf("cannot grow partition %q: not in the table", name)
	}
	const step = Alignment / SectorSize
	_, last := t.usable()
	last = (last+1)/step*step - 1
	for _, other := range t.Partitions {
		if other != nil && other.First > p.Last && other.First-1 < last {
			last = other.First - 1
		}
	}
	if last <= p.Last {
		return false, nil
	}
	p.Last = last
	return true, nil
}

// Read decodes the table of a disk of size bytes: its primary copy, or the
// backup at the end of the disk when the primary is damaged. The result is
// already resized to size.
func Read(r io.ReaderAt, size int64) (*Table, error) {
	if size < 0 {
		return nil, fmt.Errorf("cannot read partition table: size %d", size)
	}
	sectors := uint64(size) / SectorSize
	if sectors < 3 {
		return nil, fmt.Errorf("cannot read partition table: disk of %d bytes", size)
	}
	t, alternate, err := readCopy(r, sectors, 1)
	if err == nil {
		if second, _, backupErr := readCopy(r, sectors, alternate); backupErr != nil || alternate != sectors-1 || !t.equal(second) {
			t.moved = true
		}
	} else {
		var backupErr error
		t, _, backupErr = readCopy(r, sectors, sectors-1)
		switch {
		case errors.Is(err, ErrNoTable) && errors.Is(backupErr, ErrNoTable):
			return nil, fmt.Errorf("cannot read partition table: %w", ErrNoTable)
		case backupErr != nil:
			return nil, fmt.Errorf("cannot read partition table: %w (backup: %w)", err, backupErr)
		}
		t.moved = true
	}
	if err := t.check(); err != nil {
		return nil, fmt.Errorf("cannot read partition table: %w", err)
	}
	t.sectors = sectors
	return t, t.Resize(size)
}

func (t *Table) equal(o *Table) bool {
	return t.ID == o.ID && slices.EqualFunc(t.Partitions, o.Partitions, func(a, b *Partition) bool {
		return a == b || a != nil && b != nil && *a == *b
	})
}

func (t *Table) check() error {
	var used []*Partition
	for _, p := range t.Partitions {
		if p != nil {
			used = append(used, p)
		}
	}
	slices.SortFunc(used, func(a, b *Partition) int { return cmp.Compare(a.First, b.First) })
	for i, p := range used {
		if p.First < arraySectors+2 {
			return fmt.Errorf("partition %q begins at sector %d, inside of the table", p.Name, p.First)
		}
		if p.Last < p.First {
			return fmt.Errorf("partition %q ends at sector %d before its first, %d", p.Name, p.Last, p.First)
		}
		if i > 0 && used[i-1].Last >= p.First {
			return fmt.Errorf("partitions %q and %q overlap", used[i-1].Name, p.Name)
		}
	}
	return nil
}

// header is the on-disk form of both headers.
type header struct {
	Signature   [8]byte
	Revision    uint32
	HeaderSize  uint32
	HeaderCRC   uint32
	Reserved    uint32
	Current     uint64
	Alternate   uint64
	FirstUsable uint64
	LastUsable  uint64
	DiskID      GUID
	Array       uint64
	EntryCount  uint32
	EntrySize   uint32
	ArrayCRC    uint32
}

// entry is the on-disk form of a partition.
type entry struct {
	Type, ID    GUID
	First, Last uint64
	Attributes  uint64
	Name        [nameUnits]uint16
}

// readCopy decodes the copy whose header is at that sector, and returns where it says that the other is.
func readCopy(r io.ReaderAt, sectors, at uint64) (*Table, uint64, error) {
	if at == 0 || at >= sectors {
		return nil, 0, fmt.Errorf("header at sector %d of %d", at, sectors)
	}
	sector := make([]byte, SectorSize)
	if _, err := r.ReadAt(sector, int64(at)*SectorSize); err != nil {
		return nil, 0, fmt.Errorf("cannot read sector %d: %w", at, err)
	}
	var h header
	if _, err := binary.Decode(sector, binary.LittleEndian, &h); err != nil {
		return nil, 0, err
	}
	if string(h.Signature[:]) != signature {
		return nil, 0, ErrNoTable
	}
	if h.HeaderSize < headerSize || h.HeaderSize > SectorSize {
		return nil, 0, fmt.Errorf("header at sector %d has size %d", at, h.HeaderSize)
	}
	clear(sector[16:20])
	if crc := crc32.ChecksumIEEE(sector[:h.HeaderSize]); crc != h.HeaderCRC {
		return nil, 0, fmt.Errorf("header at sector %d has checksum %08x, expected %08x", at, h.HeaderCRC, crc)
	}
	if h.Current != at {
		return nil, 0, fmt.Errorf("header at sector %d is meant for sector %d", at, h.Current)
	}
	if h.EntrySize != entrySize || h.EntryCount == 0 || h.EntryCount > maxEntries {
		return nil, 0, fmt.Errorf("header at sector %d announces %d entries of %d bytes", at, h.EntryCount, h.EntrySize)
	}
	array := make([]byte, h.EntryCount*entrySize)
	if h.Array >= sectors {
		return nil, 0, fmt.Errorf("header at sector %d puts the entries at sector %d of %d", at, h.Array, sectors)
	}
	if _, err := r.ReadAt(array, int64(h.Array)*SectorSize); err != nil {
		return nil, 0, fmt.Errorf("cannot read partition entries: %w", err)
	}
	if crc := crc32.ChecksumIEEE(array); crc != h.ArrayCRC {
		return nil, 0, fmt.Errorf("partition entries have checksum %08x, expected %08x", crc, h.ArrayCRC)
	}
	t := &Table{ID: h.DiskID, sectors: sectors}
	for i := range int(h.EntryCount) {
		var e entry
		if _, err := binary.Decode(array[i*entrySize:], binary.LittleEndian, &e); err != nil {
			return nil, 0, err
		}
		if e.Type == (GUID{}) {
			t.Partitions = append(t.Partitions, nil)
			continue
		}
		name := e.Name[:]
		if end := slices.Index(name, 0); end >= 0 {
			name = name[:end]
		}
		t.Partitions = append(t.Partitions, &Partition{
			Name: string(utf16.Decode(name)), Type: e.Type, ID: e.ID,
			First: e.First, Last: e.Last, Attributes: e.Attributes,
		})
	}
	for len(t.Partitions) > 0 && t.Partitions[len(t.Partitions)-1] == nil {
		t.Partitions = t.Partitions[:len(t.Partitions)-1]
	}
	if len(t.Partitions) > entryCount {
		return nil, 0, fmt.Errorf("partition number %d is used; at most %d are supported", len(t.Partitions), entryCount)
	}
	return t, h.Alternate, nil
}

// Write puts the protective MBR and both copies on the disk. The backup is
// written first, so that at any moment one of the two is whole.
func (t *Table) Write(w io.WriterAt) error {
	if err := t.check(); err != nil {
		return fmt.Errorf("cannot write partition table: %w", err)
	}
	array := make([]byte, 0, entryCount*entrySize)
	for _, p := range t.Partitions {
		var e entry
		if p != nil {
			e = entry{Type: p.Type, ID: p.ID, First: p.First, Last: p.Last, Attributes: p.Attributes}
			copy(e.Name[:], utf16.Encode([]rune(p.Name)))
		}
		array, _ = binary.Append(array, binary.LittleEndian, &e)
	}
	array = append(array, make([]byte, entryCount*entrySize-len(array))...)

	end := t.sectors - 1
	for _, part := range []struct {
		sector uint64
		data   []byte
	}{
		{end - arraySectors, array},
		{end, t.header(end, 1, end-arraySectors, array)},
		{2, array},
		{1, t.header(1, end, 2, array)},
	} {
		if _, err := w.WriteAt(part.data, int64(part.sector)*SectorSize); err != nil {
			return fmt.Errorf("cannot write partition table at sector %d: %w", part.sector, err)
		}
	}
	// The first 440 bytes of the MBR are boot code and stay untouched.
	if _, err := w.WriteAt(t.protectiveMBR(), 440); err != nil {
		return fmt.Errorf("cannot write protective MBR: %w", err)
	}
	t.moved = false
	return nil
}

func (t *Table) header(at, alternate, array uint64, entries []byte) []byte {
	first, last := t.usable()
	h := header{
		Revision: revision, HeaderSize: headerSize, Current: at, Alternate: alternate,
		FirstUsable: first, LastUsable: last, DiskID: t.ID, Array: array,
		EntryCount: entryCount, EntrySize: entrySize, ArrayCRC: crc32.ChecksumIEEE(entries),
	}
	copy(h.Signature[:], signature)
	data, _ := binary.Append(nil, binary.LittleEndian, &h)
	binary.LittleEndian.PutUint32(data[16:], crc32.ChecksumIEEE(data[:headerSize]))
	return append(data, make([]byte, SectorSize-len(data))...)
}

// protectiveMBR returns bytes 440 to 512 of sector 0.
func (t *Table) protectiveMBR() []byte {
	mbr := make([]byte, SectorSize-440)
	record := mbr[446-440:]
	copy(record, []byte{0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff})
	binary.LittleEndian.PutUint32(record[8:], 1)
	binary.LittleEndian.PutUint32(record[12:], uint32(min(t.sectors-1, 0xffffffff)))
	mbr[510-440], mbr[511-440] = 0x55, 0xaa
	return mbr
}

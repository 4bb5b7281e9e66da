// Package qcow2 writes disk images: without content, with that of a raw image, or as
// an overlay whose content is that of a raw file until something is written.
//
// Specification: QEMU docs/interop/qcow2.txt, version 3, clusters of 64 KiB,
// 16-bit reference counts, no snapshots, no encryption, no compression; clusters of
// zeroes take no space. Reading and changing existing images is left to QEMU.
package qcow2

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
)

const (
	clusterBits = 16
	clusterSize = 1 << clusterBits
	// Each entry of the L1 table points to an L2 table of clusterSize/8 clusters.
	bytesPerL1 = clusterSize / 8 * clusterSize
	// maxSize is what one refcount block of metadata can describe with room to spare.
	maxSize = 64 << 40

	extensionBackingFormat = 0xe2792aca
	maxBackingName         = 1023
)

// Image describes an image to write.
type Image struct {
	// Size is the virtual size in bytes, a multiple of 512. It may exceed that
	// of the backing file; the rest then reads as zeroes.
	Size int64
	// Backing is the path of a raw file, absolute or relative to the folder
	// of the image; empty: none.
	Backing string
	// Content is the beginning of the image, ContentSize bytes of it; may be nil.
	Content     io.ReaderAt
	ContentSize int64
}

// header is the on-disk header of version 3.
type header struct {
	Magic, Version            uint32
	BackingOffset             uint64
	BackingSize               uint32
	ClusterBits               uint32
	Size                      uint64
	Encryption                uint32
	L1Size                    uint32
	L1Offset                  uint64
	RefcountTableOffset       uint64
	RefcountTableClusters     uint32
	Snapshots                 uint32
	SnapshotsOffset           uint64
	Incompatible, Compatible  uint64
	Autoclear                 uint64
	RefcountOrder, HeaderSize uint32
	CompressionType, Padding  uint8
	Padding2                  uint16
	Padding3                  uint32
}

// Write writes the image: header, refcount table, refcount block, L1 table, one
// or more clusters each.
func Write(w io.Writer, image Image) error {
	if image.Size <= 0 || image.Size%512 != 0 || image.Size > maxSize {
		return fmt.Errorf("cannot write qcow2 image of %d bytes: not a multiple of 512 up to %d", image.Size, int64(maxSize))
	}
	if len(image.Backing) > maxBackingName {
		return fmt.Errorf("cannot write qcow2 image: name of backing file has %d bytes, more than %d", len(image.Backing), maxBackingName)
	}
	if image.ContentSize > image.Size {
		return fmt.Errorf("cannot write qcow2 image: content of %d bytes in a disk of %d", image.ContentSize, image.Size)
	}
	used, err := image.used()
	if err != nil {
		return fmt.Errorf("cannot write qcow2 image: %w", err)
	}
	l := plan(image.Size, used)
	h := header{
		Magic: 0x514649fb, Version: 3, ClusterBits: clusterBits, Size: uint64(image.Size),
		RefcountTableOffset: 1 * clusterSize, RefcountTableClusters: 1,
		L1Offset: uint64(l.l1 * clusterSize), L1Size: uint32(l.entries),
		RefcountOrder: 4, // 1<<4 bits
	}
	h.HeaderSize = uint32(binary.Size(h))

	var extensions bytes.Buffer
	extension := func(kind uint32, data string) {
		binary.Write(&extensions, binary.BigEndian, []uint32{kind, uint32(len(data))})
		extensions.WriteString(data)
		extensions.Write(make([]byte, -len(data)&7))
	}
	if image.Backing != "" {
		extension(extensionBackingFormat, "raw")
	}
	extension(0, "") // end
	if image.Backing != "" {
		h.BackingOffset = uint64(h.HeaderSize) + uint64(extensions.Len())
		h.BackingSize = uint32(len(image.Backing))
	}

	out := make([]byte, l.data*clusterSize)
	head, err := binary.Append(out[:0], binary.BigEndian, &h)
	if err != nil {
		return fmt.Errorf("cannot write qcow2 header: %w", err)
	}
	copy(out[len(head):], append(extensions.Bytes(), image.Backing...))
	for i := range l.refcounts {
		binary.BigEndian.PutUint64(out[clusterSize+8*i:], uint64((2+i)*clusterSize))
	}
	for i := range l.data + int64(len(used)) {
		binary.BigEndian.PutUint16(out[2*clusterSize+2*i:], 1)
	}
	const copied = 1 << 63 // the reference count is 1
	table, last := l.l2-1, int64(-1)
	for i, cluster := range used {
		if entry := cluster / perL2; entry != last {
			table, last = table+1, entry
			binary.BigEndian.PutUint64(out[l.l1*clusterSize+8*entry:], uint64(table*clusterSize)|copied)
		}
		at := (l.data + int64(i)) * clusterSize
		binary.BigEndian.PutUint64(out[table*clusterSize+8*(cluster%perL2):], uint64(at)|copied)
	}
	if _, err := w.Write(out); err != nil {
		return fmt.Errorf("cannot write qcow2 image: %w", err)
	}
	data := make([]byte, clusterSize)
	for _, cluster := range used {
		if err := image.read(data, cluster); err != nil {
			return fmt.Errorf("cannot write qcow2 image: %w", err)
		}
		if _, err := w.Write(data); err != nil {
			return fmt.Errorf("cannot write qcow2 image: %w", err)
		}
	}
	return nil
}

// layout says at which cluster each kind begins: header, refcount table, refcount
// blocks, L1 table, L2 tables, data.
type layout struct{ refcounts, entries, l1, l2, data int64 }

// perL2 and perBlock are how many clusters an L2 table and a refcount block describe.
const (
	perL2    = clusterSize / 8
	perBlock = clusterSize / 2
)

func plan(size int64, used []int64) layout {
	l := layout{refcounts: 1, entries: (size + bytesPerL1 - 1) / bytesPerL1}
	tables, last := int64(0), int64(-1)
	for _, cluster := range used {
		if cluster/perL2 != last {
			tables, last = tables+1, cluster/perL2
		}
	}
	for {
		l.l1 = 2 + l.refcounts
		l.l2 = l.l1 + (l.entries*8+clusterSize-1)/clusterSize
		l.data = l.l2 + tables
		if all := l.data + int64(len(used)); all <= l.refcounts*perBlock {
			return l
		}
		l.refcounts++
	}
}

// used lists the clusters of the content that are not all zeroes.
func (i Image) used() ([]int64, error) {
	var used []int64
	data, zeroes := make([]byte, clusterSize), make([]byte, clusterSize)
	for cluster := int64(0); cluster*clusterSize < i.ContentSize; cluster++ {
		if err := i.read(data, cluster); err != nil {
			return nil, err
		}
		if !bytes.Equal(data, zeroes) {
			used = append(used, cluster)
		}
	}
	return used, nil
}

// read fills a buffer with a cluster of the content, and with zeroes beyond its end.
func (i Image) read(data []byte, cluster int64) error {
	at := cluster * clusterSize
	n := min(clusterSize, i.ContentSize-at)
	clear(data[n:])
	if got, err := i.Content.ReadAt(data[:n], at); int64(got) < n {
		return fmt.Errorf("cannot read its content at byte %d: %w", at, err)
	}
	return nil
}

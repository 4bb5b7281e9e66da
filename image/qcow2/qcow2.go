// Package qcow2 writes empty disk images: either without content, or as an
// overlay whose content is that of a raw file until something is written.
//
// Specification: QEMU docs/interop/qcow2.txt, version 3, clusters of 64 KiB,
// 16-bit reference counts, no snapshots, no encryption, no compression. Reading
// and changing existing images is left to QEMU.
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
	entries := (image.Size + bytesPerL1 - 1) / bytesPerL1
	l1Clusters := (entries*8 + clusterSize - 1) / clusterSize
	h := header{
		Magic: 0x514649fb, Version: 3, ClusterBits: clusterBits, Size: uint64(image.Size),
		RefcountTableOffset: 1 * clusterSize, RefcountTableClusters: 1,
		L1Offset: 3 * clusterSize, L1Size: uint32(entries),
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

	out := make([]byte, (3+l1Clusters)*clusterSize)
	head, err := binary.Append(out[:0], binary.BigEndian, &h)
	if err != nil {
		return fmt.Errorf("cannot write qcow2 header: %w", err)
	}
	copy(out[len(head):], append(extensions.Bytes(), image.Backing...))
	binary.BigEndian.PutUint64(out[1*clusterSize:], 2*clusterSize)
	for i := range 3 + l1Clusters {
		binary.BigEndian.PutUint16(out[2*clusterSize+2*i:], 1)
	}
	if _, err := w.Write(out); err != nil {
		return fmt.Errorf("cannot write qcow2 image: %w", err)
	}
	return nil
}

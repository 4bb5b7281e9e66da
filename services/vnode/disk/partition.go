package disk

import (
	"encoding/binary"
	"io"
)

const (
	sectorSize  = 512
	firstSector = 2048 // of the partition
	maxSectors  = 1<<32 - 1

	kindLinux = 0x83
	kindFAT32 = 0x0c // by sector number
)

// extent is the only partition of a disk.
type extent struct {
	kind           byte
	first, sectors uint32
}

// partition returns the partition of a disk of some size.
func partition(size int64) extent {
	return extent{kindLinux, firstSector, uint32(min(size/sectorSize-firstSector, maxSectors-firstSector))}
}

// write writes the partition table: a master boot record without code.
func (e extent) write(w io.WriterAt) error {
	record := make([]byte, sectorSize)
	entry := record[446:462]
	// Beyond what cylinders, heads and sectors can tell, as any tool writes it.
	copy(entry[1:], []byte{0xfe, 0xff, 0xff})
	entry[4] = e.kind
	copy(entry[5:], []byte{0xfe, 0xff, 0xff})
	binary.LittleEndian.PutUint32(entry[8:], e.first)
	binary.LittleEndian.PutUint32(entry[12:], e.sectors)
	record[510], record[511] = 0x55, 0xaa
	_, err := w.WriteAt(record, 0)
	return err
}

package disk

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
)

// Layout of an empty FAT32 file system (Microsoft FAT32 File System Specification 1.03).
const (
	reservedSectors = 32
	fats            = 2
	infoSector      = 1
	backupSector    = 6
	mediaByte       = 0xf8
	endOfChain      = 0x0fffffff
	rootCluster     = 2
)

// clusterSectors returns how many sectors a cluster has, as mkfs.fat chooses.
func clusterSectors(sectors uint32) uint32 {
	const gigabyte = 1 << 30 / sectorSize
	switch {
	case sectors > 32*gigabyte:
		return 64
	case sectors > 16*gigabyte:
		return 32
	case sectors > 8*gigabyte:
		return 16
	}
	return 8
}

// formatFAT32 makes an empty file system in a partition that reads as zeroes: all that
// is written are its first sectors.
func formatFAT32(w io.WriterAt, p extent) error {
	per := clusterSectors(p.sectors)
	// Each cluster takes its sectors and four bytes in each FAT; two entries are no clusters.
	fatSectors := ((p.sectors-reservedSectors)/per+2)*4/sectorSize + 1
	clusters := (p.sectors - reservedSectors - fats*fatSectors) / per

	boot := make([]byte, sectorSize)
	copy(boot, "\xeb\x58\x90WALT    ")
	le := binary.LittleEndian
	le.PutUint16(boot[11:], sectorSize)
	boot[13] = byte(per)
	le.PutUint16(boot[14:], reservedSectors)
	boot[16] = fats
	boot[21] = mediaByte
	le.PutUint16(boot[24:], 63)  // sectors of a track
	le.PutUint16(boot[26:], 255) // heads
	le.PutUint32(boot[28:], p.first)
	le.PutUint32(boot[32:], p.sectors)
	le.PutUint32(boot[36:], fatSectors)
	le.PutUint32(boot[44:], rootCluster)
	le.PutUint16(boot[48:], infoSector)
	le.PutUint16(boot[50:], backupSector)
	boot[64] = 0x80 // drive
	boot[66] = 0x29 // the following three are there
	le.PutUint32(boot[67:], rand.Uint32())
	copy(boot[71:], "NO NAME    FAT32   ")
	boot[510], boot[511] = 0x55, 0xaa

	info := make([]byte, sectorSize)
	copy(info, "RRaA")
	copy(info[484:], "rrAa")
	le.PutUint32(info[488:], clusters-1) // free
	le.PutUint32(info[492:], rootCluster+1)
	info[510], info[511] = 0x55, 0xaa

	table := make([]byte, sectorSize)
	for i, entry := range []uint32{0x0fffff00 | mediaByte, endOfChain, endOfChain} {
		le.PutUint32(table[4*i:], entry)
	}
	for sector, content := range map[uint32][]byte{
		0: boot, infoSector: info, backupSector: boot, backupSector + infoSector: info,
		reservedSectors: table, reservedSectors + fatSectors: table,
	} {
		if _, err := w.WriteAt(content, (int64(p.first)+int64(sector))*sectorSize); err != nil {
			return fmt.Errorf("cannot format it as FAT32: %w", err)
		}
	}
	return nil
}

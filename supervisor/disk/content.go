package disk

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Ext is what the superblock of an ext2, 3 or 4 file system says (struct
// ext4_super_block of Linux).
type Ext struct {
	Label     string
	BlockSize int64
	Blocks    int64
	Valid     bool // cleanly unmounted, or its journal makes it so
	Errors    bool // the kernel has found damage
}

const (
	extOffset  = 1024
	extMagic   = 0xef53
	extJournal = 0x4 // incompatible feature: needs recovery, by its journal
)

// ReadExt reads the superblock; ok is false when there is none.
func ReadExt(r io.ReaderAt) (e Ext, ok bool, err error) {
	sb := make([]byte, 1024)
	if _, err := r.ReadAt(sb, extOffset); err != nil {
		return e, false, fmt.Errorf("cannot read superblock: %w", err)
	}
	little := binary.LittleEndian
	logSize := little.Uint32(sb[0x18:])
	if little.Uint16(sb[0x38:]) != extMagic || logSize > 6 {
		return e, false, nil
	}
	state := little.Uint16(sb[0x3a:])
	incompatible := little.Uint32(sb[0x60:])
	label, _, _ := bytes.Cut(sb[0x78:0x88], []byte{0})
	e = Ext{
		Label: string(label), BlockSize: 1024 << logSize,
		Blocks: int64(little.Uint32(sb[4:])) | int64(little.Uint32(sb[0x150:])&0x7fffffff)<<32,
		Valid:  state&1 != 0 || incompatible&extJournal != 0,
		Errors: state&2 != 0,
	}
	return e, true, nil
}

// signatures of what people keep on disks, from libblkid's list: where, what, whose.
var signatures = []struct {
	offset int64
	magic  string
	name   string
}{
	{0, "LUKS\xba\xbe", "encrypted volume (LUKS)"},
	{0, "XFSB", "XFS file system"},
	{65600, "_BHRfS_M", "btrfs file system"},
	{512, "LABELONE", "LVM physical volume"},
	{4096 - 10, "SWAPSPACE2", "swap space"},
	{3, "NTFS    ", "NTFS file system"},
	{3, "EXFAT   ", "exFAT file system"},
	{54, "FAT1", "FAT file system"},
	{82, "FAT32   ", "FAT file system"},
	{1024, "\xe2\xe1\xf5\xe0", "EROFS file system"},
	{0, "hsqs", "squashfs file system"},
	{1024, "\x10\x20\xf5\xf2", "F2FS file system"},
	{4096, "\xfc\x4e\x2b\xa9", "RAID member"},
	{32769, "CD001", "ISO 9660 file system"},
	{512, "EFI PART", "partition table"},
	{24 << 10, "bcachefs", "bcachefs file system"},
}

// probed is how much of the beginning is looked at when nothing is recognised.
const probed = 4 << 20

// Content tells what a partition of size bytes holds besides ext: the name of a known
// signature; "unknown data" if it is not blank; or "".
func Content(r io.ReaderAt, size int64) (string, error) {
	head := make([]byte, min(probed, size))
	if _, err := io.ReadFull(io.NewSectionReader(r, 0, size), head); err != nil {
		return "", fmt.Errorf("cannot read partition: %w", err)
	}
	for _, s := range signatures {
		if end := s.offset + int64(len(s.magic)); end <= int64(len(head)) && string(head[s.offset:end]) == s.magic {
			return s.name, nil
		}
	}
	for _, b := range head {
		if b != 0 {
			return unknownData, nil
		}
	}
	return "", nil
}

const unknownData = "unknown data"

// Decision is what to do with a data partition before it is mounted.
type Decision struct {
	Format bool
	Check  bool // run e2fsck
}

// Decide looks at a data partition. It refuses one that holds anything that is not
// ext4, unless this package made the partition and nothing known is on it.
func (d Data) Decide() (Decision, error) {
	f, err := os.Open(d.Device)
	if err != nil {
		return Decision{}, fmt.Errorf("cannot look at %s: %w", d.Device, err)
	}
	defer f.Close()
	return decide(f, d.Device, d.Size, d.Fresh)
}

func decide(r io.ReaderAt, name string, size int64, fresh bool) (Decision, error) {
	ext, ok, err := ReadExt(r)
	if err != nil {
		return Decision{}, fmt.Errorf("cannot look at %s: %w", name, err)
	}
	if ok {
		// A reinstalled system finds, in the partition that it makes, the data of the one
		// before. A stranger's file system may begin at the same place.
		if fresh && ext.Label != DataName {
			return Decision{}, fmt.Errorf("cannot use %s: it holds a file system labelled %q, which WalT has not put there and will not erase", name, ext.Label)
		}
		if ext.Blocks > size/ext.BlockSize {
			return Decision{}, fmt.Errorf("cannot use %s: its file system has %d MiB, the partition only %d MiB",
				name, ext.Blocks*ext.BlockSize>>20, size>>20)
		}
		return Decision{Check: fresh || ext.Errors || !ext.Valid}, nil
	}
	content, err := Content(r, size)
	if err != nil {
		return Decision{}, fmt.Errorf("cannot look at %s: %w", name, err)
	}
	if content == "" || content == unknownData && fresh {
		return Decision{Format: true}, nil
	}
	return Decision{}, fmt.Errorf("cannot use %s: it holds %s, which WalT has not put there and will not erase", name, content)
}

// extResize is EXT4_IOC_RESIZE_FS.
const extResize = 0x40086610

// Grow extends a mounted ext4 file system to the end of its partition, and reports
// whether there was anything to do.
func (d Data) Grow(mountpoint string) (bool, error) {
	f, err := os.Open(d.Device)
	if err != nil {
		return false, fmt.Errorf("cannot look at %s: %w", d.Device, err)
	}
	ext, ok, err := ReadExt(f)
	f.Close()
	if err != nil || !ok {
		return false, err
	}
	blocks := uint64(d.Size / ext.BlockSize)
	// Less than a block group may not be worth a new one to the kernel.
	if group := 8 * ext.BlockSize; int64(blocks)-ext.Blocks < group {
		return false, nil
	}
	dir, err := os.Open(mountpoint)
	if err != nil {
		return false, fmt.Errorf("cannot grow file system: %w", err)
	}
	defer dir.Close()
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, dir.Fd(), extResize, uintptr(unsafe.Pointer(&blocks)))
	if errno != 0 {
		return false, fmt.Errorf("cannot grow the file system of %s to %d blocks: %w", d.Device, blocks, errno)
	}
	return true, nil
}

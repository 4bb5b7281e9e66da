// Package verity opens a dm-verity device by device-mapper ioctls, without libdevmapper
// and without a superblock. Specification: Documentation/admin-guide/device-mapper/verity.rst
// and include/uapi/linux/dm-ioctl.h of Linux. Only version 1, SHA-256, blocks of 4096
// bytes, hash tree in the same device behind the data.
package verity

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// BlockSize is that of data and hashes, in bytes.
const BlockSize = 4096

// Target says what to trust: the kernel parameter walt.verity.
type Target struct {
	Root, Salt []byte
	Blocks     uint64 // of data
	HashStart  uint64 // block where the tree begins
}

// Parse reads "ROOT,SALT,BLOCKS,HASHSTART", hashes in hexadecimal.
func Parse(text string) (Target, error) {
	var t Target
	fields := strings.Split(text, ",")
	if len(fields) != 4 {
		return t, fmt.Errorf("cannot read verity parameters: %d fields instead of 4", len(fields))
	}
	var err error
	if t.Root, err = hex.DecodeString(fields[0]); err != nil || len(t.Root) != sha256.Size {
		return t, fmt.Errorf("cannot read verity parameters: root hash %q is not 64 hexadecimal digits", fields[0])
	}
	if t.Salt, err = hex.DecodeString(fields[1]); err != nil || len(t.Salt) > 256 {
		return t, fmt.Errorf("cannot read verity parameters: salt %q is not hexadecimal", fields[1])
	}
	if t.Blocks, err = strconv.ParseUint(fields[2], 10, 40); err != nil || t.Blocks == 0 {
		return t, fmt.Errorf("cannot read verity parameters: number of data blocks %q", fields[2])
	}
	if t.HashStart, err = strconv.ParseUint(fields[3], 10, 40); err != nil || t.HashStart < t.Blocks {
		return t, fmt.Errorf("cannot read verity parameters: hash block %q", fields[3])
	}
	return t, nil
}

// Check compares the top of the hash tree with the root hash, so that a root of another
// version is refused in words; all other blocks are checked by the kernel as they are
// read.
func (t Target) Check(device io.ReaderAt) error {
	block := make([]byte, BlockSize)
	if _, err := device.ReadAt(block, int64(t.HashStart)*BlockSize); err != nil {
		return fmt.Errorf("cannot read the hash tree: %w", err)
	}
	sum := sha256.Sum256(append(append([]byte{}, t.Salt...), block...))
	if string(sum[:]) != string(t.Root) {
		return fmt.Errorf("cannot trust the root: its hash is %x, expected %x", sum, t.Root)
	}
	return nil
}

// ioctl numbers of the device mapper, with the size of its header in them.
const (
	dmCreate    = 0xc138fd03
	dmSuspend   = 0xc138fd06
	dmTableLoad = 0xc138fd09

	dmReadOnly = 1 << 0
)

// header is struct dm_ioctl.
type header struct {
	Version     [3]uint32
	DataSize    uint32
	DataStart   uint32
	TargetCount uint32
	OpenCount   int32
	Flags       uint32
	EventNr     uint32
	_           uint32
	Dev         uint64
	Name        [128]byte
	UUID        [129]byte
	_           [7]byte
}

// spec is struct dm_target_spec.
type spec struct {
	SectorStart uint64
	Length      uint64
	Status      int32
	Next        uint32
	Type        [16]byte
}

// message is one ioctl: header, one target, its parameters.
type message struct {
	header header
	spec   spec
	text   [1024]byte
}

// Open makes a read-only mapped device over a block device, given by its number
// "MAJOR:MINOR", and returns the path of the new one.
func Open(name, device string, t Target) (string, error) {
	control, err := os.OpenFile("/dev/mapper/control", os.O_RDWR, 0)
	if err != nil {
		return "", fmt.Errorf("cannot open the device mapper: %w", err)
	}
	defer control.Close()
	call := func(request uintptr, m *message) error {
		m.header.Version = [3]uint32{4, 0, 0}
		m.header.DataSize = uint32(unsafe.Sizeof(*m))
		m.header.DataStart = uint32(unsafe.Offsetof(m.spec))
		copy(m.header.Name[:len(m.header.Name)-1], name)
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, control.Fd(), request, uintptr(unsafe.Pointer(m)))
		if errno != 0 {
			return errno
		}
		return nil
	}
	created := &message{}
	if err := call(dmCreate, created); err != nil {
		return "", fmt.Errorf("cannot make mapped device %s: %w", name, err)
	}
	table := &message{}
	table.header.Flags = dmReadOnly
	table.header.TargetCount = 1
	table.spec.Length = t.Blocks * BlockSize / 512
	copy(table.spec.Type[:], "verity")
	parameters := t.parameters(device)
	if len(parameters) >= len(table.text) {
		return "", fmt.Errorf("cannot load the verity table: %d bytes of parameters", len(parameters))
	}
	copy(table.text[:], parameters)
	if err := call(dmTableLoad, table); err != nil {
		return "", fmt.Errorf("cannot load the verity table over %s: %w", device, err)
	}
	if err := call(dmSuspend, &message{}); err != nil { // without the suspend flag: resume
		return "", fmt.Errorf("cannot resume mapped device %s: %w", name, err)
	}
	return fmt.Sprintf("/dev/dm-%d", unix.Minor(created.header.Dev)), nil
}

func (t Target) parameters(device string) string {
	salt := "-"
	if len(t.Salt) > 0 {
		salt = hex.EncodeToString(t.Salt)
	}
	return fmt.Sprintf("1 %s %s %d %d %d %d sha256 %x %s 1 panic_on_corruption",
		device, device, BlockSize, BlockSize, t.Blocks, t.HashStart, t.Root, salt)
}

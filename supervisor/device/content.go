package device

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
)

// Content is what a file system says of itself.
type Content struct {
	UUID, Label string
}

// links are its names below /dev/disk.
func (c Content) links() (links []string) {
	if c.UUID != "" {
		links = append(links, "by-uuid/"+encode(c.UUID))
	}
	if c.Label != "" {
		links = append(links, "by-label/"+encode(c.Label))
	}
	return links
}

// format is a file system: where its mark is, and where its names are.
type format struct {
	at     int64 // of the mark
	mark   string
	uuid   int64
	serial int // bytes of a FAT serial number; 0: a UUID
	label  int64
	length int
}

// formats are those that disks of a server may have (the magic numbers and offsets of
// include/uapi/linux/magic.h and the headers of each).
var formats = []format{
	{at: 0x438, mark: "\x53\xef", uuid: 0x468, label: 0x478, length: 16},         // ext2 to ext4
	{at: 0, mark: "XFSB", uuid: 32, label: 108, length: 12},                      // XFS
	{at: 0x10040, mark: "_BHRfS_M", uuid: 0x10020},                               // btrfs: fsid; its label is below
	{at: 0x400, mark: "\xe2\xe1\xf5\xe0", uuid: 0x430, label: 0x440, length: 16}, // EROFS
	{at: 4086, mark: "SWAPSPACE2", uuid: 0x40c, label: 0x41c, length: 16},        // swap
	{at: 82, mark: "FAT32   ", uuid: 67, serial: 4, label: 71, length: 11},       // FAT32
	{at: 54, mark: "FAT1", uuid: 39, serial: 4, label: 43, length: 11},           // FAT12, FAT16
}

// partitioned is the mark of a GPT.
const partitioned = "EFI PART"

// btrfsLabel is where btrfs has its label.
const (
	btrfsMark   = "_BHRfS_M"
	btrfsLabel  = 0x10000 + 0x12b
	btrfsLength = 256
)

// headSize is as far as the names of all formats are.
const headSize = 0x10000 + 0x400

// ReadContent looks for a file system; none is no error.
func ReadContent(r io.ReaderAt) (Content, error) {
	head := make([]byte, headSize)
	n, err := r.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return Content{}, fmt.Errorf("cannot look for a file system: %w", err)
	}
	return parseContent(head[:n]), nil
}

func parseContent(head []byte) Content {
	if string(part(head, 512, len(partitioned))) == partitioned {
		return Content{} // names of partitions are where file systems have their marks
	}
	for _, f := range formats {
		if string(part(head, f.at, len(f.mark))) != f.mark {
			continue
		}
		label := part(head, f.label, f.length)
		if f.mark == btrfsMark {
			label = part(head, btrfsLabel, btrfsLength)
		}
		label, _, _ = bytes.Cut(label, []byte{0})
		c := Content{Label: strings.TrimSpace(string(label))}
		if f.serial > 0 {
			if serial := part(head, f.uuid, f.serial); serial != nil {
				number := binary.LittleEndian.Uint32(serial)
				c.UUID = fmt.Sprintf("%04X-%04X", number>>16, number&0xffff)
			}
			if c.Label == "NO NAME" {
				c.Label = ""
			}
			return c
		}
		if id := part(head, f.uuid, 16); id != nil && !bytes.Equal(id, make([]byte, 16)) {
			text := hex.EncodeToString(id)
			c.UUID = text[:8] + "-" + text[8:12] + "-" + text[12:16] + "-" + text[16:20] + "-" + text[20:]
		}
		return c
	}
	return Content{}
}

func part(head []byte, at int64, length int) []byte {
	if length == 0 || at+int64(length) > int64(len(head)) {
		return nil
	}
	return head[at : at+int64(length)]
}

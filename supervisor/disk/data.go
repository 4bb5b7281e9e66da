package disk

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/waltos/waltos/image/gpt"
	"golang.org/x/sys/unix"
)

// DataName is the name of the data partition and the label of its file system.
const DataName = "data"

// unformatted is the attribute (bit 48, the first that belongs to the partition type) of
// a data partition that this package made and whose file system is not complete: a
// power cut during the first boot must not leave it looking like unknown data.
const unformatted = 1 << 48

// minimumData is the least space worth a data partition.
const minimumData = 64 << 20

// Data is the data partition of a disk, present in the kernel's view.
type Data struct {
	Partition
	// Fresh: it was made by this package, and has no complete file system yet.
	Fresh bool
	// Done in words, for the console: "made", "grown"; or empty.
	Done string
}

// EnsureData makes or grows the data partition of a disk, as "vda", and moves the backup
// partition table to the end of the disk. It writes only when something changes.
func EnsureData(disk string) (Data, error) {
	fail := func(err error) (Data, error) {
		return Data{}, fmt.Errorf("cannot prepare partition %q of /dev/%s: %w", DataName, disk, err)
	}
	if text, err := os.ReadFile(filepath.Join(sysBlock, disk, "queue/logical_block_size")); err == nil {
		if size := strings.TrimSpace(string(text)); size != strconv.Itoa(gpt.SectorSize) {
			return fail(fmt.Errorf("the disk has sectors of %s bytes; only %d is supported", size, gpt.SectorSize))
		}
	}
	f, err := os.OpenFile("/dev/"+disk, os.O_RDWR, 0)
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	table, err := gpt.Read(f, sectors(filepath.Join(sysBlock, disk)))
	if err != nil {
		return fail(err)
	}
	index, entry := table.Find(DataName)
	var data Data
	switch {
	case entry == nil:
		if index, entry, err = addData(table); err != nil {
			return fail(err)
		}
		data.Done = "made"
	default:
		grown, err := table.Grow(DataName)
		if err != nil {
			return fail(err)
		}
		if grown {
			data.Done = "grown"
		}
	}
	if data.Done != "" || table.Stale() {
		if err := table.Write(f); err != nil {
			return fail(err)
		}
		if err := f.Sync(); err != nil {
			return fail(err)
		}
	}
	data.Fresh = entry.Attributes&unformatted != 0
	p, known := find(disk, index)
	switch {
	case !known:
		err = tellKernel(f, unix.BLKPG_ADD_PARTITION, index, entry.Offset(), entry.Size())
	case p.Size != entry.Size():
		err = tellKernel(f, unix.BLKPG_RESIZE_PARTITION, index, entry.Offset(), entry.Size())
	}
	if err != nil {
		return fail(fmt.Errorf("the kernel refuses it: %w", err))
	}
	if data.Partition, known = find(disk, index); !known {
		return fail(errors.New("the kernel does not show it"))
	}
	return data, awaitNode(data.Device)
}

func addData(table *gpt.Table) (int, *gpt.Partition, error) {
	p := &gpt.Partition{Name: DataName, Type: gpt.Linux, Attributes: unformatted}
	if _, err := rand.Read(p.ID[:]); err != nil {
		return 0, nil, err
	}
	p.ID[7] = p.ID[7]&0x0f | 0x40 // version 4, of a little-endian field
	p.ID[8] = p.ID[8]&0x3f | 0x80
	if err := table.Add(p, 0); err != nil {
		return 0, nil, fmt.Errorf("%w; give the machine a larger disk", err)
	}
	if p.Size() < minimumData {
		return 0, nil, fmt.Errorf("only %d MiB are free after the system; give the machine a larger disk", p.Size()>>20)
	}
	index, entry := table.Find(DataName)
	return index, entry, nil
}

// Formatted notes in the partition table that the file system is complete.
func (d Data) Formatted() error {
	fail := func(err error) error {
		return fmt.Errorf("cannot note that %s is formatted: %w", d.Device, err)
	}
	f, err := os.OpenFile("/dev/"+d.Disk, os.O_RDWR, 0)
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	table, err := gpt.Read(f, sectors(filepath.Join(sysBlock, d.Disk)))
	if err != nil {
		return fail(err)
	}
	_, entry := table.Find(DataName)
	if entry == nil {
		return fail(errors.New("it is not in the partition table"))
	}
	entry.Attributes &^= unformatted
	if err := table.Write(f); err != nil {
		return fail(err)
	}
	if err := f.Sync(); err != nil {
		return fail(err)
	}
	return nil
}

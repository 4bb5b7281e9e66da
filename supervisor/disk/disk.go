// Package disk finds partitions by name and keeps the data partition: made in the free
// space at first boot, grown when the disk has grown, never formatted when there may be
// data on it.
package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Partition is a block device that is part of a disk.
type Partition struct {
	Name   string // GPT name, or "" when the kernel does not know it
	Device string // as "/dev/vda2"
	Number string // "MAJOR:MINOR"
	Index  int    // in the partition table, from 1
	Disk   string // as "vda"
	Size   int64  // bytes
}

// sysBlock lists all block devices.
const sysBlock = "/sys/class/block"

// Partitions returns those of all disks.
func Partitions() []Partition {
	entries, err := os.ReadDir(sysBlock)
	if err != nil {
		return nil
	}
	var list []Partition
	for _, e := range entries {
		if p, ok := readPartition(filepath.Join(sysBlock, e.Name())); ok {
			list = append(list, p)
		}
	}
	return list
}

func readPartition(dir string) (p Partition, ok bool) {
	uevent, err := os.ReadFile(filepath.Join(dir, "uevent"))
	if err != nil {
		return p, false
	}
	values := map[string]string{}
	for line := range strings.Lines(string(uevent)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			values[name] = value
		}
	}
	if values["DEVTYPE"] != "partition" {
		return p, false
	}
	target, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return p, false
	}
	p = Partition{
		Name: values["PARTNAME"], Device: "/dev/" + values["DEVNAME"], Number: values["MAJOR"] + ":" + values["MINOR"],
		Disk: filepath.Base(filepath.Dir(target)), Size: sectors(dir),
	}
	if p.Index, err = strconv.Atoi(values["PARTN"]); err != nil {
		return p, false
	}
	return p, true
}

// sectors returns the size of a block device in bytes; sysfs counts sectors of 512.
func sectors(dir string) int64 {
	text, err := os.ReadFile(filepath.Join(dir, "size"))
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 54)
	if err != nil {
		return 0
	}
	return n * 512
}

// find returns the partition of that number of a disk.
func find(disk string, index int) (Partition, bool) {
	for _, p := range Partitions() {
		if p.Disk == disk && p.Index == index {
			return p, true
		}
	}
	return Partition{}, false
}

// tellKernel adds or resizes one partition in the kernel's view of a disk whose other
// partitions are in use (BLKPG; a full re-read would be refused).
func tellKernel(disk *os.File, operation int32, index int, offset, size int64) error {
	partition := unix.BlkpgPartition{Start: offset, Length: size, Pno: int32(index)}
	argument := unix.BlkpgIoctlArg{
		Op: operation, Datalen: int32(unsafe.Sizeof(partition)), Data: (*byte)(unsafe.Pointer(&partition)),
	}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, disk.Fd(), unix.BLKPG, uintptr(unsafe.Pointer(&argument)))
	if errno != 0 {
		return errno
	}
	return nil
}

// awaitNode waits until a device has its node: the kernel makes it a moment after it
// announces the device.
func awaitNode(path string) error {
	const limit = 10 * time.Second
	for end := time.Now().Add(limit); ; time.Sleep(5 * time.Millisecond) {
		_, err := os.Stat(path)
		if err == nil {
			return nil
		}
		if !errors.Is(err, os.ErrNotExist) || time.Now().After(end) {
			return fmt.Errorf("cannot find device node: %w", err)
		}
	}
}

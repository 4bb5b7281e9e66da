package flash

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Device is a disk of this machine.
type Device struct {
	Path   string // as "/dev/sdb"
	Name   string // of the kernel, as "sdb"
	ID     string // what tells it from all others: name by-id, serial number or, if it has none, Name
	Model  string
	Size   int64
	Sector int // bytes that it reads or writes at once
	// Removable is what the device says of itself: USB sticks, card readers.
	Removable bool
	// Partitions are named as "sdb1 (ext4 label data)" or shorter.
	Partitions []string
}

func (d *Device) String() string {
	kind := "fixed"
	if d.Removable {
		kind = "removable"
	}
	return strings.Join(strings.Fields(fmt.Sprintf("%s: %s disk %s, %.1f GB, id %s", d.Path, kind, d.Model, float64(d.Size)/1e9, d.ID)), " ")
}

// Find describes the disk of a path. Refused: what is no block device, and partitions.
func Find(path string) (*Device, error) {
	d, err := find(path, "/sys", "/dev")
	if err != nil {
		return nil, fmt.Errorf("cannot flash %s: %w", path, err)
	}
	return d, nil
}

func find(path, sys, dev string) (*Device, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode()&os.ModeDevice == 0 || info.Mode()&os.ModeCharDevice != 0 {
		return nil, errors.New("it is no disk; name a block device as /dev/sdX (lsblk lists them)")
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, err
	}
	d := &Device{Path: real, Name: filepath.Base(real)}
	folder := filepath.Join(sys, "class", "block", d.Name)
	if _, err := os.Stat(folder); err != nil {
		return nil, fmt.Errorf("the kernel does not know it: %w", err)
	}
	if _, err := os.Stat(filepath.Join(folder, "partition")); err == nil {
		return nil, errors.New("it is a partition; name the whole disk")
	}
	read := func(name string) string {
		content, _ := os.ReadFile(filepath.Join(folder, name))
		return strings.TrimSpace(string(content))
	}
	if read("ro") == "1" {
		return nil, errors.New("it is write protected")
	}
	var sectors int64
	if _, err := fmt.Sscan(read("size"), &sectors); err != nil {
		return nil, fmt.Errorf("cannot read its size: %w", err)
	}
	d.Size = sectors * 512 // the unit of sysfs, whatever the disk's sectors are
	if _, err := fmt.Sscan(read("queue/logical_block_size"), &d.Sector); err != nil {
		return nil, fmt.Errorf("cannot read the size of its sectors: %w", err)
	}
	d.Removable = read("removable") == "1"
	d.Model = strings.TrimSpace(read("device/vendor") + " " + read("device/model"))
	d.ID = byID(dev, d.Name)
	for _, file := range []string{"device/serial", "serial", "device/cid", "device/wwid", "wwid"} {
		if d.ID == "" {
			d.ID = strings.Join(strings.Fields(read(file)), "_")
		}
	}
	if d.ID == "" {
		d.ID = d.Name
	}
	parts, err := filepath.Glob(filepath.Join(folder, d.Name+"*", "partition"))
	if err != nil {
		return nil, err
	}
	for _, part := range parts {
		d.Partitions = append(d.Partitions, filepath.Base(filepath.Dir(part)))
	}
	return d, nil
}

// byID returns the shortest name below /dev/disk/by-id that leads to a disk.
func byID(dev, name string) string {
	folder := filepath.Join(dev, "disk", "by-id")
	entries, err := os.ReadDir(folder)
	if err != nil {
		return ""
	}
	best := ""
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join(folder, e.Name()))
		if err == nil && filepath.Base(target) == name && (best == "" || len(e.Name()) < len(best)) {
			best = e.Name()
		}
	}
	return best
}

// Open opens a disk for nobody else: it fails while a partition is mounted or used as
// swap space, or the disk is part of a volume.
func (d *Device) Open() (*os.File, error) {
	f, err := os.OpenFile(d.Path, os.O_RDWR|unix.O_EXCL, 0)
	switch {
	case errors.Is(err, unix.EBUSY):
		return nil, fmt.Errorf("cannot flash %s: it is in use; unmount its file systems (findmnt lists them)", d.Path)
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("cannot flash %s: %w; run this as root, or as a member of the group that owns it", d.Path, err)
	case err != nil:
		return nil, fmt.Errorf("cannot flash %s: %w", d.Path, err)
	}
	return f, nil
}

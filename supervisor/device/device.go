// Package device gives the devices that the kernel announces what people and programs know
// them by: the links of /dev/disk (by-id, by-path, by-uuid, by-label, by-partuuid,
// by-partlabel), the owners of shared device files, and further names of network interfaces.
// The names are those of systemd's udev (60-persistent-storage.rules, 75-net-description and
// systemd.net-naming-scheme(7)), as far as devices of servers have them.
//
// All that is read comes from sysfs and from the first megabytes of disks, and is bounded.
// Bytes of names that are not harmless become underscores. Refused: names that would leave
// their folder.
package device

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Tree is where the kernel shows devices.
type Tree struct {
	Sys string // "/sys"
	Dev string // "/dev"
}

// Device is one device at a moment.
type Device struct {
	tree      Tree
	path      string            // below Sys, as "/devices/pci0000:00/…"
	Variables map[string]string // of its uevent: DEVNAME, DEVTYPE, PARTN ….
}

// maxAttribute bounds what is read of an attribute.
const maxAttribute = 4096

// Open reads a device by its DEVPATH.
func (t Tree) Open(path string) (*Device, error) {
	if !filepath.IsLocal(strings.TrimPrefix(path, "/")) {
		return nil, fmt.Errorf("cannot look at device %q: it is no path of a device", path)
	}
	d := &Device{tree: t, path: filepath.Clean("/" + path), Variables: map[string]string{}}
	text, err := d.read("uevent")
	if err != nil {
		return nil, fmt.Errorf("cannot look at device: %w", err)
	}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "="); ok {
			d.Variables[name] = value
		}
	}
	return d, nil
}

// List opens the devices of a class, as "block".
func (t Tree) List(class string) []*Device {
	folder := filepath.Join(t.Sys, "class", class)
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil
	}
	root, err := filepath.EvalSymlinks(t.Sys)
	if err != nil {
		return nil
	}
	var list []*Device
	for _, e := range entries {
		real, err := filepath.EvalSymlinks(filepath.Join(folder, e.Name()))
		if err != nil {
			continue // it has gone
		}
		if d, err := t.Open(strings.TrimPrefix(real, root)); err == nil {
			list = append(list, d)
		}
	}
	return list
}

// Name is the kernel's, as "sda1".
func (d *Device) Name() string { return filepath.Base(d.path) }

func (d *Device) read(attribute string) (string, error) {
	f, err := os.Open(filepath.Join(d.tree.Sys, d.path, attribute))
	if err != nil {
		return "", err
	}
	defer f.Close()
	buffer := make([]byte, maxAttribute)
	n, err := f.Read(buffer)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	return string(buffer[:n]), nil
}

// Attribute is the trimmed text of an attribute; empty if there is none.
func (d *Device) Attribute(name string) string {
	text, err := d.read(name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(text)
}

// subsystem is the bus or the class of the device.
func (d *Device) subsystem() string {
	target, err := os.Readlink(filepath.Join(d.tree.Sys, d.path, "subsystem"))
	if err != nil {
		return ""
	}
	return filepath.Base(target)
}

// parent is the next device above, or nil.
func (d *Device) parent() *Device {
	for path := filepath.Dir(d.path); len(path) > len("/devices"); path = filepath.Dir(path) {
		up, err := d.tree.Open(path)
		if err == nil {
			return up
		}
		if !errors.Is(err, os.ErrNotExist) {
			return nil
		}
	}
	return nil
}

// above is the nearest device of a subsystem that this one is part of, or nil.
func (d *Device) above(subsystem string) *Device {
	for up := d.parent(); up != nil; up = up.parent() {
		if up.subsystem() == subsystem {
			return up
		}
	}
	return nil
}

// clean makes text from a device a part of a file name: blanks are joined to one underscore,
// all else that is not harmless becomes one.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= '0' && r <= '9', r >= 'A' && r <= 'Z', r >= 'a' && r <= 'z', strings.ContainsRune("#+-.:=@_", r):
			return r
		}
		return '_'
	}, strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if r == 0 {
			return ' '
		}
		return r
	}, text)), "_"))
}

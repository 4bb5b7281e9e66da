package device

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
)

// virtual disks have no name of their own hardware.
var virtual = regexp.MustCompile(`^(loop|ram|zram|nbd|fd)[0-9]`)

// Links are the names of a disk or partition below /dev/disk, without those of its content,
// as "by-id/ata-…".
func (d *Device) Links() []string {
	if virtual.MatchString(d.Name()) {
		return nil
	}
	whole, part := d, ""
	if d.Variables["DEVTYPE"] == "partition" {
		if whole = d.parent(); whole == nil {
			return nil
		}
		part = "-part" + d.Variables["PARTN"]
	}
	var links []string
	for _, id := range whole.ids() {
		links = append(links, "by-id/"+id+part)
	}
	if path := whole.pathID(); path != "" {
		links = append(links, "by-path/"+path+part)
	}
	if uuid := clean(d.Variables["PARTUUID"]); uuid != "" {
		links = append(links, "by-partuuid/"+uuid)
	}
	if name := d.Variables["PARTNAME"]; name != "" {
		links = append(links, "by-partlabel/"+encode(name))
	}
	return links
}

// ids are what tells a whole disk from all others.
func (d *Device) ids() (ids []string) {
	add := func(format string, args ...any) { ids = append(ids, clean(fmt.Sprintf(format, args...))) }
	name := d.Name()
	serial := d.Attribute("serial")
	model, vendor := d.Attribute("device/model"), d.Attribute("device/vendor")
	switch {
	case strings.HasPrefix(name, "vd"):
		if serial != "" {
			add("virtio-%s", serial)
		}
	case strings.HasPrefix(name, "nvme"):
		if serial = d.Attribute("device/serial"); serial != "" {
			add("nvme-%s_%s", model, serial)
		}
		if wwid := d.Attribute("wwid"); wwid != "" {
			add("nvme-%s", wwid)
		}
	case strings.HasPrefix(name, "mmcblk"):
		if serial = d.Attribute("device/serial"); serial != "" {
			add("mmc-%s_%s", d.Attribute("device/name"), serial)
		}
	case strings.HasPrefix(name, "dm-"):
		if dm := d.Attribute("dm/name"); dm != "" {
			add("dm-name-%s", dm)
		}
	case strings.HasPrefix(name, "sd"), strings.HasPrefix(name, "sr"):
		serial = unitSerial(d.Attribute("device/vpd_pg80"))
		usb := d.usb()
		switch {
		case usb != nil:
			if s := usb.Attribute("serial"); s != "" {
				serial = s
			}
			if serial == "" {
				serial = "0"
			}
			_, address, _ := strings.Cut(d.scsiAddress(), ":") // without the host, whose number is chance
			_, address, _ = strings.Cut(address, ":")
			add("usb-%s_%s_%s-%s", clean(vendor), clean(model), clean(serial), address)
		case vendor == "ATA" && serial != "":
			add("ata-%s_%s", clean(model), clean(serial))
		case serial != "":
			add("scsi-%s_%s_%s", clean(vendor), clean(model), clean(serial))
		}
		if wwn, ok := strings.CutPrefix(d.Attribute("device/wwid"), "naa."); ok {
			add("wwn-0x%s", wwn)
		}
	}
	return ids
}

// unitSerial reads the unit serial number page (SPC-4 §7.8.14): four bytes, then the text. Its
// first blanks are gone with those that Attribute trims.
func unitSerial(page string) string {
	if len(page) < 4 || page[1] != 0x80 {
		return ""
	}
	return strings.TrimSpace(strings.Trim(page[4:], "\x00"))
}

// usb is the USB device that a disk is part of, or nil.
func (d *Device) usb() *Device {
	for up := d.above("usb"); up != nil; up = up.parent() {
		if up.Variables["DEVTYPE"] == "usb_device" {
			return up
		}
	}
	return nil
}

var scsiAddress = regexp.MustCompile(`^[0-9]+:[0-9]+:[0-9]+:[0-9]+$`)

// scsiAddress is HOST:CHANNEL:TARGET:LUN, or empty.
func (d *Device) scsiAddress() string {
	for dir := filepath.Dir(d.path); len(dir) > 1; dir = filepath.Dir(dir) {
		if base := filepath.Base(dir); scsiAddress.MatchString(base) {
			return base
		}
	}
	return ""
}

var (
	pciAddress = regexp.MustCompile(`^[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$`)
	ataPort    = regexp.MustCompile(`^ata[0-9]+$`)
	usbPort    = regexp.MustCompile(`^[0-9]+-([0-9.]+:[0-9]+\.[0-9]+)$`)
)

// pathID is where the disk is plugged.
func (d *Device) pathID() string {
	var pci, usb, tail string
	parts := strings.Split(d.path, "/")
	for _, part := range parts {
		switch {
		case pciAddress.MatchString(part):
			pci = "pci-" + part
		case ataPort.MatchString(part):
			if up, err := d.tree.Open(strings.Join(parts[:index(parts, part)+1], "/") + "/ata_port/" + part); err == nil {
				if n := up.Attribute("port_no"); n != "" {
					tail = "-ata-" + clean(n)
				}
			}
		case usbPort.MatchString(part):
			usb = "-usb-0:" + usbPort.FindStringSubmatch(part)[1]
		}
	}
	name := d.Name()
	if strings.HasPrefix(name, "nvme") {
		if n := d.Attribute("nsid"); n != "" {
			tail = "-nvme-" + clean(n)
		}
	}
	if address := d.scsiAddress(); address != "" && tail == "" {
		_, below, _ := strings.Cut(address, ":")
		tail = "-scsi-0:" + below
	}
	if pci == "" {
		return ""
	}
	return pci + usb + tail
}

func index(parts []string, part string) int {
	for i, p := range parts {
		if p == part {
			return i
		}
	}
	return -1
}

// encode makes a label a file name, as udev does: what is not harmless is written \xNN.
func encode(label string) string {
	var out strings.Builder
	for i := 0; i < len(label); i++ {
		switch b := label[i]; {
		case b >= '0' && b <= '9', b >= 'A' && b <= 'Z', b >= 'a' && b <= 'z', b >= 0x80, strings.IndexByte("#+-.:=@_", b) >= 0:
			out.WriteByte(b)
		default:
			fmt.Fprintf(&out, `\x%02x`, b)
		}
	}
	return out.String()
}

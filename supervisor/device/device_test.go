package device

import (
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// machine is a sysfs and a /dev in folders.
type machine struct {
	Tree
	t *testing.T
}

func newMachine(t *testing.T) machine {
	dir := t.TempDir()
	m := machine{Tree{filepath.Join(dir, "sys"), filepath.Join(dir, "dev")}, t}
	for _, folder := range []string{m.Sys, m.Dev} {
		m.must(os.MkdirAll(folder, 0o755))
	}
	return m
}

func (m machine) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

// add makes a device: its class or bus, and its attributes.
func (m machine) add(path, subsystem string, attributes ...string) string {
	m.t.Helper()
	folder := filepath.Join(m.Sys, path)
	m.must(os.MkdirAll(folder, 0o755))
	for _, a := range append([]string{"uevent="}, attributes...) {
		name, text, _ := strings.Cut(a, "=")
		m.must(os.MkdirAll(filepath.Dir(filepath.Join(folder, name)), 0o755))
		m.must(os.WriteFile(filepath.Join(folder, name), []byte(text), 0o644))
	}
	class := filepath.Join(m.Sys, "class", subsystem)
	m.must(os.MkdirAll(class, 0o755))
	_ = os.Remove(filepath.Join(folder, "subsystem"))
	m.must(os.Symlink(class, filepath.Join(folder, "subsystem")))
	if subsystem == "block" || subsystem == "net" {
		m.must(os.Symlink(folder, filepath.Join(class, filepath.Base(path))))
	}
	return path
}

func (m machine) open(path string) *Device {
	m.t.Helper()
	d, err := m.Open(path)
	m.must(err)
	return d
}

const (
	board  = "/devices/pci0000:00/"
	usbDir = board + "0000:00:14.0/usb1/1-2/1-2.3/1-2.3:1.0"
)

func TestLinksOfDisks(t *testing.T) {
	m := newMachine(t)
	m.add(board+"0000:00:14.0", "pci")
	m.add(board+"0000:00:14.0/usb1/1-2/1-2.3", "usb", "serial=0123 456\n", "uevent=DEVTYPE=usb_device\n")
	m.add(usbDir, "usb", "uevent=DEVTYPE=usb_interface\n")
	m.add(board+"0000:00:17.0/ata3/ata_port/ata3", "ata_port", "port_no=3\n")
	page := "\x00\x80\x00\x14    QM00001"
	for _, c := range []struct {
		path       string
		attributes []string
		want       string
	}{
		{board + "0000:00:04.0/virtio1/block/vda", []string{"serial=walt os\n"}, "by-id/virtio-walt_os by-path/pci-0000:00:04.0"},
		{board + "0000:00:04.0/virtio1/block/vda/vda2", []string{"uevent=DEVTYPE=partition\nPARTN=2\nPARTNAME=root a\nPARTUUID=1234-ab\n"},
			`by-id/virtio-walt_os-part2 by-partlabel/root\x20a by-partuuid/1234-ab by-path/pci-0000:00:04.0-part2`},
		{board + "0000:00:05.0/virtio2/block/vdb", nil, "by-path/pci-0000:00:05.0"},
		{board + "0000:00:1d.0/0000:3d:00.0/nvme/nvme0/nvme0n1", []string{"device/model=Disk  One\n", "device/serial=S1 \n", "wwid=eui.0025\n", "nsid=1\n"},
			"by-id/nvme-Disk_One_S1 by-id/nvme-eui.0025 by-path/pci-0000:3d:00.0-nvme-1"},
		{board + "0000:00:17.0/ata3/host2/target2:0:0/2:0:0:0/block/sda", []string{"device/vendor=ATA     \n", "device/model=QEMU HARDDISK\n", "device/vpd_pg80=" + page, "device/wwid=naa.5000c5\n"},
			"by-id/ata-QEMU_HARDDISK_QM00001 by-id/wwn-0x5000c5 by-path/pci-0000:00:17.0-ata-3"},
		{board + "0000:00:08.0/host3/target3:1:2/3:1:2:4/block/sdb", []string{"device/vendor=DELL\n", "device/model=PERC\n", "device/vpd_pg80=" + page},
			"by-id/scsi-DELL_PERC_QM00001 by-path/pci-0000:00:08.0-scsi-0:1:2:4"},
		{usbDir + "/host6/target6:0:0/6:0:0:0/block/sdc", []string{"device/vendor=Generic\n", "device/model=Flash/Disk\n"},
			"by-id/usb-Generic_Flash_Disk_0123_456-0:0 by-path/pci-0000:00:14.0-usb-0:2.3:1.0-scsi-0:0:0:0"},
		{"/devices/platform/soc/mmc0/mmc0:1/block/mmcblk0", []string{"device/name=SD16\n", "device/serial=0xff\n"}, "by-id/mmc-SD16_0xff"},
		{"/devices/virtual/block/dm-0", []string{"dm/name=root\n"}, "by-id/dm-name-root"},
		{"/devices/virtual/block/loop0", []string{"serial=x\n"}, ""},
	} {
		got := m.open(m.add(c.path, "block", c.attributes...)).Links()
		slices.Sort(got)
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %q\nwant %q", c.path, got, c.want)
		}
	}
}

func TestNetworkNames(t *testing.T) {
	m := newMachine(t)
	multi := make([]byte, 64)
	multi[0x0e] = 0x80
	m.add(board+"0000:00:02.0", "pci", "config="+string(make([]byte, 64)))
	m.add(board+"0000:00:1f.6", "pci", "acpi_index=1\n", "config="+string(multi))
	m.add(board+"0000:0a:00.0", "pci", "config="+string(multi))
	m.add("/devices/pci10000:00/10000:01:00.0", "pci")
	m.add(board+"0000:00:14.0", "pci")
	m.add(board+"0000:00:14.0/usb1/1-2/1-2.3", "usb", "uevent=DEVTYPE=usb_device\n")
	m.add(usbDir, "usb", "uevent=DEVTYPE=usb_interface\n")
	usual := []string{"type=1\n", "address=52:54:00:aa:bb:cc\n", "addr_assign_type=0\n", "dev_port=0\n"}
	for _, c := range []struct {
		path       string
		attributes []string
		want       string
	}{
		{board + "0000:00:02.0/virtio0/net/eth0", usual, "enp0s2 enx525400aabbcc"},
		{board + "0000:00:1f.6/net/eth1", usual, "eno1 enp0s31f6 enx525400aabbcc"},
		{board + "0000:0a:00.0/net/eth2", append(usual[:3:3], "dev_port=1\n"), "enp10s0f0d1 enx525400aabbcc"},
		{"/devices/pci10000:00/10000:01:00.0/net/eth3", append(usual[:2:2], "addr_assign_type=3\n"), "enP65536p1s0"},
		{usbDir + "/net/eth4", usual, "enp0s20u2u3 enx525400aabbcc"},
		{board + "0000:00:02.0/net/wlan0", append(usual, "uevent=DEVTYPE=wlan\n"), ""},
		{"/devices/virtual/net/walt-net", usual, ""},
		{"/devices/virtual/net/lo", []string{"type=772\n"}, ""},
	} {
		if got := strings.Join(m.open(m.add(c.path, "net", c.attributes...)).NetworkNames(), " "); got != c.want {
			t.Errorf("%s: %q, want %q", c.path, got, c.want)
		}
	}
}

// wantLinks compares what is below /dev/disk.
func (m machine) wantLinks(want ...string) {
	m.t.Helper()
	found, err := filepath.Glob(filepath.Join(m.Dev, "disk/*/*"))
	m.must(err)
	var got []string
	for _, path := range found {
		target, err := os.Readlink(path)
		m.must(err)
		name, _ := filepath.Rel(filepath.Join(m.Dev, "disk"), path)
		got = append(got, name+" "+target)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		m.t.Errorf("links %q\nwant %q", got, want)
	}
}

func TestLinks(t *testing.T) {
	m := newMachine(t)
	m.add(board+"0000:00:04.0", "pci")
	a := m.add(board+"0000:00:04.0/virtio1/block/vda", "block", "serial=a\n")
	b := m.add("/devices/platform/x/block/vdb", "block", "serial=b\n")
	// Copies of one file system, and a label that wants out.
	head := extHead("../../passwd")
	m.must(os.WriteFile(filepath.Join(m.Dev, "vda"), head, 0o644))
	m.must(os.WriteFile(filepath.Join(m.Dev, "vdb"), head, 0o644))
	const label, uuid = `by-label/..\x2f..\x2fpasswd `, "by-uuid/01010101-0101-0101-0101-010101010101 "
	l := NewLinks(m.Tree)
	m.must(l.Sync())
	m.wantLinks("by-id/virtio-a ../../vda", "by-id/virtio-b ../../vdb", "by-path/pci-0000:00:04.0 ../../vda", label+"../../vda", uuid+"../../vda")
	m.must(l.Sync())
	// The first one goes.
	m.must(os.RemoveAll(filepath.Join(m.Sys, a)))
	m.must(l.Remove(a))
	m.wantLinks("by-id/virtio-b ../../vdb", label+"../../vdb", uuid+"../../vdb")
	// The second one is formatted.
	m.must(os.WriteFile(filepath.Join(m.Dev, "vdb"), extHead(".."), 0o644))
	m.must(l.Add(m.open(b)))
	m.wantLinks("by-id/virtio-b ../../vdb", uuid+"../../vdb")
	// And is gone when nobody looked.
	m.must(os.RemoveAll(filepath.Join(m.Sys, b)))
	m.must(l.Sync())
	m.wantLinks()
	if len(l.claims)+len(l.of) != 0 {
		t.Errorf("remembered: %v %v", l.claims, l.of)
	}
}

// extHead is the beginning of an ext4.
func extHead(label string) []byte {
	head := make([]byte, 8192)
	binary.LittleEndian.PutUint16(head[0x438:], 0xef53)
	for i := range 16 {
		head[0x468+i] = 1
	}
	copy(head[0x478:0x488], label)
	return head
}

// TestContentOfRealFileSystems compares with the programs that made them.
func TestContentOfRealFileSystems(t *testing.T) {
	for name, c := range map[string]struct {
		argv []string
		want Content
	}{
		"ext4":  {[]string{"mke2fs", "-q", "-F", "-t", "ext4", "-L", "data", "-U", "6e1ae271-4d3b-4a5c-9a2f-3c0b3d1b5a11"}, Content{"6e1ae271-4d3b-4a5c-9a2f-3c0b3d1b5a11", "data"}},
		"FAT16": {[]string{"mkfs.fat", "-F", "16", "-n", "ESP", "-i", "12ab34cd"}, Content{"12AB-34CD", "ESP"}},
		"FAT32": {[]string{"mkfs.fat", "-F", "32", "-i", "12ab34cd"}, Content{"12AB-34CD", ""}},
		"swap":  {[]string{"mkswap", "-L", "swap", "-U", "6e1ae271-4d3b-4a5c-9a2f-3c0b3d1b5a12"}, Content{"6e1ae271-4d3b-4a5c-9a2f-3c0b3d1b5a12", "swap"}},
		"XFS":   {[]string{"mkfs.xfs", "-q", "-L", "x", "-m", "uuid=6e1ae271-4d3b-4a5c-9a2f-3c0b3d1b5a13"}, Content{"6e1ae271-4d3b-4a5c-9a2f-3c0b3d1b5a13", "x"}},
		"btrfs": {[]string{"mkfs.btrfs", "-q", "-L", "b", "-U", "6e1ae271-4d3b-4a5c-9a2f-3c0b3d1b5a14"}, Content{"6e1ae271-4d3b-4a5c-9a2f-3c0b3d1b5a14", "b"}},
	} {
		t.Run(name, func(t *testing.T) {
			program, err := exec.LookPath(c.argv[0])
			if errors.Is(err, exec.ErrNotFound) {
				if program = "/sbin/" + c.argv[0]; !exists(program) {
					t.Skipf("%s is not installed", c.argv[0])
				}
			}
			file := filepath.Join(t.TempDir(), "disk")
			if err := errors.Join(os.WriteFile(file, nil, 0o644), os.Truncate(file, 400<<20)); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.CommandContext(t.Context(), program, append(c.argv[1:], file)...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			f, err := os.Open(file)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if got, err := ReadContent(f); err != nil || got != c.want {
				t.Errorf("%+v, %v; want %+v", got, err, c.want)
			}
		})
	}
}

func TestContentOfPartitionedDisk(t *testing.T) {
	head := extHead("x")
	if parseContent(head) == (Content{}) {
		t.Fatal("the file system is not seen")
	}
	copy(head[512:], "EFI PART")
	if c := parseContent(head); c != (Content{}) {
		t.Errorf("a partition table is taken for %+v", c)
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func TestOpenRefuses(t *testing.T) {
	m := newMachine(t)
	for _, path := range []string{"", "/../etc", "/devices/../../dev", "/devices/none"} {
		if d, err := m.Open(path); err == nil {
			t.Errorf("%q was opened as %s", path, d.path)
		}
	}
}

func FuzzContent(f *testing.F) {
	f.Add(extHead("x"))
	f.Add([]byte("XFSB"))
	f.Fuzz(func(t *testing.T, head []byte) {
		for _, link := range parseContent(head).links() {
			if strings.Count(link, "/") != 1 {
				t.Fatalf("the link %q leads elsewhere", link)
			}
		}
	})
}

func FuzzNames(f *testing.F) {
	f.Add("walt os", "\x00\x80\x00\x04abcd")
	f.Fuzz(func(t *testing.T, text, page string) {
		for _, name := range []string{clean(text), encode(text), clean(unitSerial(page))} {
			if strings.ContainsAny(name, "/\x00") {
				t.Fatalf("%q leads elsewhere", name)
			}
		}
	})
}

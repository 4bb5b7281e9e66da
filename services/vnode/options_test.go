package vnode

import (
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/waltos/waltos/qemu/machine"
	"github.com/waltos/waltos/services/vnode/disk"
	"github.com/waltos/waltos/services/vnode/network"
)

// usual is how the server starts the program (node-protocols 6.2).
var usual = []string{"--hostname", "vn1", "--mac", "52:54:00:AA:bb:cc", "--ip", "192.168.152.2", "--model", "pc-x86-64",
	"--server-ip", "192.168.152.1", "--cpu-cores", "4", "--ram", "512M", "--disks", "none", "--networks", "walt-net",
	"--netmask", "255.255.255.0", "--gateway", "", "--boot-delay", "random", "--managed"}

func parse(args ...string) (options, error) {
	var o options
	cmd := o.command(func() error { return nil })
	cmd.SetArgs(args)
	cmd.SetOut(io.Discard)
	err := cmd.Execute()
	return o, err
}

func TestUsualOptions(t *testing.T) {
	o, err := parse(usual...)
	if err != nil {
		t.Fatal(err)
	}
	if o.MAC != "52:54:00:aa:bb:cc" || o.IP != "192.168.152.2" || o.Hostname != "vn1" || o.Server != "192.168.152.1" || o.Model != "pc-x86-64" ||
		o.Netmask != "255.255.255.0" || !o.known.gateway || o.gateway != "" || !o.managed || o.accelerator != machine.KVM {
		t.Errorf("the options are %+v", o)
	}
	if o.cores != 4 || o.ram != 512 || o.disks != nil || len(o.networks) != 1 || o.bootDelay != randomDelay {
		t.Errorf("the settings are %+v", o.settings)
	}
	if o.pidPath != "/var/lib/walt/nodes/52:54:00:aa:bb:cc/pid" || o.screenPath != "/var/lib/walt/nodes/52:54:00:aa:bb:cc/screen_session" ||
		o.disksPath != "/var/lib/walt/nodes/52:54:00:aa:bb:cc/disks" || o.networksPath != "/var/lib/walt/nodes/52:54:00:aa:bb:cc/networks" {
		t.Errorf("the paths are %q %q %q %q", o.pidPath, o.screenPath, o.disksPath, o.networksPath)
	}
}

// TestDefectN13UsualMachine: --ram and --disks may be omitted (node-protocols 9.1).
func TestDefectN13UsualMachine(t *testing.T) {
	o, err := parse("--net-conf-udhcpc", "--mac", "52:54:00:aa:bb:cc", "--model", "pc-x86-64")
	if err != nil {
		t.Fatal(err)
	}
	if o.ram != 512 || o.disks != nil || o.cores != 4 || o.bootDelay != randomDelay || !o.dhcp || o.known.gateway {
		t.Errorf("the options are %+v", o)
	}
}

func TestOptions(t *testing.T) {
	for _, test := range []struct {
		change  string // of the usual options, in words
		refused string // "": it is not
	}{
		{"--ram 2G", ""}, {"--ram 1G --cpu-cores 0", ""}, {"--boot-delay 0", ""}, {"--acceleration tcg", ""},
		{"--disks 8G,1T[template=hybrid-boot-p]", ""}, {"--networks walt-net[bw=1Gbps],home[lat=8ms]", ""},
		{"--pid-path /a --screen-session-path /b --disks-path /c --networks-path /d", ""},
		{"--log-file /a --log-prefix b --on-vm-reboot c --attach-usb", ""}, {"--gateway 192.168.152.1", ""},
		{"--mac 5", "no MAC address"}, {"--mac 00:00:00:00:00:00:00:00", "no MAC address"},
		{"--hostname a,b", "no name of a node"}, {"--hostname -a", "no name of a node"},
		{"--model ../x", "no model"}, {"--ip ::1", "no IPv4"}, {"--ip x", "no IPv4"}, {"--server-ip x", "no IPv4"},
		{"--netmask x", "no IPv4"}, {"--gateway x", "no IPv4"}, {"--gateway fe80::1", "no IPv4"},
		{"--ram 512", "such as 512M"}, {"--ram 1T", "such as 512M"}, {"--ram 0G", "such as 512M"}, {"--ram 99999999G", "such as 512M"},
		{"--ram -1M", "such as 512M"}, {"--cpu-cores x", "no number"}, {"--cpu-cores 256", "no number"}, {"--cpu-cores -1", "no number"},
		{"--boot-delay soon", "neither random nor"}, {"--boot-delay -1", "neither random nor"},
		{"--disks 8", "no disk"}, {"--networks home", "walt-net is missing"}, {"--acceleration x", "neither kvm nor tcg"},
		{"--net-conf-udhcpc", "excludes"}, {"--nonsense", "unknown flag"}, {"argument", "unknown command"},
	} {
		_, err := parse(append(slices.Clone(usual), strings.Fields(test.change)...)...)
		if test.refused == "" && err != nil || test.refused != "" && (err == nil || !strings.Contains(err.Error(), test.refused)) {
			t.Errorf("%s: %v, want %q", test.change, err, test.refused)
		}
	}
	if _, err := parse(); err == nil {
		t.Error("a node without a name was accepted")
	}
}

func TestBootDelay(t *testing.T) {
	seen := map[int]bool{}
	for range 1000 {
		seconds := randomDelay.seconds()
		if seen[seconds] = true; seconds < 1 || seconds > 10 {
			t.Errorf("a random delay has %d s", seconds)
		}
	}
	if len(seen) != 10 || delay(3).seconds() != 3 {
		t.Errorf("delays are %v", seen)
	}
}

// TestQEMUCommand compares the command line of QEMU with node-protocols 6.3.
func TestQEMUCommand(t *testing.T) {
	h := hardware{
		host:     host{board: "pc", card: "virtio-net-pci"},
		identity: identity{Hostname: "vn1", MAC: "52:54:00:aa:bb:cc"},
		settings: settings{cores: 2, ram: 1024}, accelerator: machine.KVM,
		kernel: "/proc/self/fd/3", arguments: "console=ttyS0 a=1,2",
	}
	want := "-name vn1 -accel kvm -no-user-config -nodefaults -machine pc -cpu host -m 1024 -smp 2" +
		" -nographic -serial mon:stdio -no-reboot -kernel /proc/self/fd/3 -append console=ttyS0 a=1,2 "
	if got := strings.Join(h.words(), " "); got != want {
		t.Errorf("the command is\n%s, not\n%s", got, want)
	}
	h.accelerator, h.initrd, h.image, h.arguments = machine.TCG, "/proc/self/fd/4", "/a,b/fs", ""
	h.disks = []disk.File{{Path: "/d/disk_0.dd"}, {Path: "/d,e/disk_1.dd"}}
	h.cards = []card{{mac: "52:54:00:aa:bb:cc", descriptor: 5, vhost: true}, {mac: "52:54:00:00:00:01", descriptor: 6}}
	want = "-name vn1 -accel tcg,tb-size=256 -no-user-config -nodefaults -machine pc -cpu max,erms=off,fsrm=off -m 1024 -smp 2" +
		" -device virtio-scsi-pci,id=scsi" +
		" -drive if=none,id=disk0,format=raw,discard=unmap,werror=report,rerror=report,file=/d/disk_0.dd -device scsi-hd,drive=disk0,bus=scsi.0,scsi-id=0,product=QEMU-DISK" +
		" -drive if=none,id=disk1,format=raw,discard=unmap,werror=report,rerror=report,file=/d,,e/disk_1.dd -device scsi-hd,drive=disk1,bus=scsi.0,scsi-id=1,product=QEMU-DISK" +
		" -netdev tap,id=net0,fd=5,vhost=on -device virtio-net-pci,netdev=net0,mac=52:54:00:aa:bb:cc,romfile=" +
		" -netdev tap,id=net1,fd=6 -device virtio-net-pci,netdev=net1,mac=52:54:00:00:00:01,romfile=" +
		" -nographic -serial mon:stdio -no-reboot -kernel /proc/self/fd/3" +
		" -virtfs local,id=dev,path=/a,,b/fs,security_model=none,mount_tag=walt_image,readonly=on -initrd /proc/self/fd/4"
	if got := strings.Join(h.words(), " "); got != want {
		t.Errorf("the command is\n%s, not\n%s", got, want)
	}
}

// FuzzCommand gives the program any lines of standard input: it goes on, and what it
// accepts can be used.
func FuzzCommand(f *testing.F) {
	for _, line := range []string{"CONF ram 1G", "CONF disks 1G[template=ext4]", "CONF networks walt-net,a[lat=1ms,bw=2Gbps]",
		"CONF gateway ", "CONF boot_delay random", "INPUT aGVsbG8=", "KILL_VM", "EXIT", "CONF cpu_cores 0", "CONF x", ""} {
		f.Add(line + "\n")
	}
	f.Fuzz(func(t *testing.T, lines string) {
		n := &node{input: newInput(), output: newOutput(io.Discard, nil), settings: settings{networks: []network.Spec{{Name: network.Platform}}}}
		n.obey(strings.NewReader(lines))
		n.output.close()
		s := n.settings
		if s.cores < 0 || s.cores > maxCores || s.ram < 0 || s.ram > maxRAM || len(s.networks) == 0 || s.bootDelay < randomDelay {
			t.Errorf("the settings are %+v", s)
		}
	})
}

// TestLongCommand skips a line that is too long, and that only.
func TestLongCommand(t *testing.T) {
	r, w := io.Pipe()
	n := &node{input: newInput(), output: newOutput(w, nil)}
	go func() {
		n.obey(strings.NewReader(strings.Repeat("x", maxCommand+1) + "\nCONF ram 3G\nEXIT\nCONF ram 4G\n"))
		n.output.close()
		w.Close()
	}()
	said, err := io.ReadAll(r)
	if err != nil || n.settings.ram != 3*1024 || string(said) != "Invalid command, ignored: "+strings.Repeat("x", 200)+"\r\n" {
		t.Errorf("%d MiB, %v, it said %q", n.settings.ram, err, said)
	}
}

// TestConsoleChunks is that of node-protocols 6.4: output is gathered, lines end with CR
// LF, and no write is larger than 4096 bytes.
func TestConsoleChunks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var chunks []string
		o := newOutput(writer(func(p []byte) { chunks = append(chunks, string(p)) }), nil)
		for _, text := range []string{"a\n", "b\r", "\nc"} {
			io.WriteString(o, text)
		}
		time.Sleep(gatherTime)
		synctest.Wait()
		if !slices.Equal(chunks, []string{"a\r\nb\r\nc"}) {
			t.Errorf("the first chunks are %q", chunks)
		}
		io.WriteString(o, strings.Repeat("x", 10_000))
		o.close()
		var sizes []int
		for _, text := range chunks[1:] {
			sizes = append(sizes, len(text))
		}
		if !slices.Equal(sizes, []int{4096, 4096, 10_000 - 2*4096}) {
			t.Errorf("the chunks have %v bytes", sizes)
		}
	})
}

// writer is a function that gets what is written.
type writer func(p []byte)

func (w writer) Write(p []byte) (int, error) { w(p); return len(p), nil }

// TestConsoleWithoutReader writes what nobody reads: it is bounded, nothing waits, and a
// reader that comes is told.
func TestConsoleWithoutReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		o := newOutput(w, nil)
		text := strings.Repeat("0123456789abcde\n", 1000)
		for range 1000 {
			io.WriteString(o, text)
		}
		io.WriteString(o, "the end")
		go func() {
			o.close()
			w.Close()
		}()
		got, err := io.ReadAll(r)
		if err != nil || len(got) > maxWaiting+3*maxChunk || !strings.HasSuffix(string(got), "the end") ||
			!strings.Contains(string(got), "bytes of output are lost]") {
			t.Errorf("%d bytes were kept, %v: ...%q", len(got), err, got[max(0, len(got)-100):])
		}
	})
}

// TestConsoleEnd ends while its reader takes nothing.
func TestConsoleEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		o := newOutput(w, nil)
		io.WriteString(o, "x")
		began := time.Now()
		o.close()
		if took := time.Since(began); took != closeTime {
			t.Errorf("the end took %v", took)
		}
		r.Close()
	})
}

func TestPrefix(t *testing.T) {
	var log strings.Builder
	p := newPrefixer(&log, "vn1")
	for _, text := range []string{"a\r\nb", "c\r\n", "\r\n"} {
		if n, err := io.WriteString(p, text); n != len(text) || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	}
	if log.String() != "[vn1] a\r\n[vn1] bc\r\n[vn1] \r\n" {
		t.Errorf("the log is %q", log.String())
	}
}

func TestUSBRefused(t *testing.T) {
	if _, err := thisHost().usbPorts(true); err == nil || !strings.Contains(err.Error(), "no Raspberry Pi 3B+") {
		t.Errorf("USB ports can be attached here: %v", err)
	}
}

package machine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Program is a QEMU ready to be run.
type Program struct {
	Argv []string // the program, preceded by its loader if it needs one, and its first options
	Env  []string // as "NAME=value": all of its environment but what is inherited
}

// inherited are the variables a QEMU gets from this process: it has no business with
// others, some of which (LD_…, QEMU_…) would lead it elsewhere.
var inherited = []string{"HOME", "PATH", "TMPDIR"}

// Command prepares to run the program with more arguments.
func (p Program) Command(ctx context.Context, args ...string) *exec.Cmd {
	if len(p.Argv) == 0 {
		return &exec.Cmd{Err: errors.New("no QEMU program is given")}
	}
	cmd := exec.CommandContext(ctx, p.Argv[0], append(p.Argv[1:len(p.Argv):len(p.Argv)], args...)...)
	cmd.Env = append([]string{}, p.Env...)
	for _, name := range inherited {
		if value, set := os.LookupEnv(name); set {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	// Its own group: a Ctrl-C for this program is not one for the machine, which
	// is stopped in order, or dies with this program.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return cmd
}

// Spec describes a virtual PC, or another computer.
type Spec struct {
	Name        string
	Board       Board
	Memory      int // MiB
	Accelerator Accelerator

	Firmware *Firmware   // UEFI; nil: BIOS
	Kernel   *Kernel     // booted by QEMU itself; nil: the firmware finds something
	Disks    []Disk      // the first is booted if there is no Kernel
	Cards    []Card      //
	Files    []GuestFile // given by fw_cfg

	// Serial says that the machine has no screen: the BIOS then writes on the console.
	Serial bool
	// Retry is how long a BIOS that found nothing to boot waits before it looks again;
	// 0: it stops.
	Retry time.Duration
	// Strings are shown by the tables of the firmware (SMBIOS 3.7 §7.12, OEM strings).
	Strings []string
	// Clock is what the real-time clock says at the start, as "2001-01-01"; empty: the time.
	Clock string
	// Watchdog adds a device that resets the machine when it is not fed (i6300ESB).
	Watchdog bool
	// Slots are for devices that are plugged while the machine runs, on the buses slot0, slot1 ….
	Slots int
	// State, if not empty, names a snapshot of the disks to continue from.
	State string
}

// Board is the kind of computer; the [Program] must be the QEMU of its processors.
type Board string

// The boards.
const (
	PC    Board = ""      // x86-64
	ARM64 Board = "arm64" // what QEMU calls virt: its console is ttyAMA0, and it has no BIOS
)

// Firmware is a UEFI.
type Firmware struct {
	Code      string // raw file
	Variables string // qcow2 file, written to
	// Secure keeps the variables from being written by others than the code itself (by
	// system management mode): a code with Secure Boot demands it.
	Secure bool
}

// Kernel is a Linux kernel and what it gets.
type Kernel struct {
	Image   string
	Initrd  string
	Command string
}

// Disk is a qcow2 file.
type Disk struct {
	File   string
	Serial string // shown to the guest
	// Detached disks belong to no device: they only hold snapshots of the machine.
	Detached bool
}

// Card is a virtio network card. Exactly one of Out and the socket given to Start by
// the same index is used.
type Card struct {
	MAC  string
	Out  *Out
	Boot string // file of a PXE ROM; empty: not booted from. See also NetworkFirst
	// NetworkFirst makes a UEFI, which has its own PXE, boot from this card.
	NetworkFirst bool
}

// Out is QEMU's user network: the machine reaches what this process reaches, by NAT.
type Out struct {
	Forwards []Forward
	// Isolated machines are only reached: they reach nothing outside.
	Isolated bool
}

// Forward leads a TCP port of this machine to one of the guest.
type Forward struct {
	Host  netip.AddrPort
	Guest uint16
}

// GuestFile is a file the guest finds in /sys/firmware/qemu_fw_cfg/by_name.
type GuestFile struct {
	Name string // as "opt/walt/walt.hcl"
	File string
}

// Descriptors that Start passes, beyond the standard three.
const (
	monitorDescriptor = 3 + iota
	consoleDescriptor
	firstCardDescriptor
)

// arguments returns what follows the program in QEMU's argument list.
func (s *Spec) arguments() []string {
	var args []string
	add := func(words ...string) { args = append(args, words...) }
	board, processor := "q35", s.Accelerator.Processor()
	switch {
	case s.Board == ARM64:
		// A plain processor boots faster than one with all that there is to translate.
		board, processor = "virt", "cortex-a72"
	case s.Serial:
		board += ",graphics=off"
	}
	if s.Firmware != nil && s.Firmware.Secure {
		board += ",smm=on"
		add("-global", "driver=cfi.pflash01,property=secure,value=on")
	}
	add("-name", s.Name, "-no-user-config", "-nodefaults", "-display", "none",
		"-machine", board, "-cpu", processor, "-smp", "1", "-m", fmt.Sprint(s.Memory),
		"-accel", s.Accelerator.Option(), "-rtc", "base="+cmp.Or(s.Clock, "utc"),
		"-chardev", fmt.Sprintf("socket,id=monitor,fd=%d", monitorDescriptor), "-mon", "chardev=monitor,mode=control",
		"-chardev", fmt.Sprintf("socket,id=console,fd=%d", consoleDescriptor), "-serial", "chardev:console")
	if f := s.Firmware; f != nil {
		add("-drive", "if=pflash,unit=0,format=raw,readonly=on,file="+escape(f.Code),
			"-drive", "if=pflash,unit=1,format=qcow2,file="+escape(f.Variables))
	}
	if k := s.Kernel; k != nil {
		add("-kernel", k.Image, "-append", k.Command)
		if k.Initrd != "" {
			add("-initrd", k.Initrd)
		}
	}
	for _, f := range s.Files {
		add("-fw_cfg", "name="+escape(f.Name)+",file="+escape(f.File))
	}
	for _, text := range s.Strings {
		add("-smbios", "type=11,value="+escape(text))
	}
	order := 1
	for i, d := range s.Disks {
		add("-drive", fmt.Sprintf("if=none,id=disk%d,format=qcow2,discard=unmap,file=%s", i, escape(d.File)))
		if d.Detached {
			continue
		}
		device := fmt.Sprintf("virtio-blk-pci,drive=disk%d,bootindex=%d", i, order)
		if d.Serial != "" {
			device += ",serial=" + escape(d.Serial)
		}
		order++
		add("-device", device)
	}
	descriptor := firstCardDescriptor
	for i, c := range s.Cards {
		if c.Out != nil {
			add("-netdev", c.Out.option(fmt.Sprintf("net%d", i)))
		} else {
			add("-netdev", fmt.Sprintf("stream,id=net%d,server=off,addr.type=fd,addr.str=%d", i, descriptor))
			descriptor++
		}
		// Without its legacy half, the card is the one that Debian's ROM is made for.
		device := fmt.Sprintf("virtio-net-pci,id=card%d,netdev=net%d,mac=%s,disable-legacy=on,romfile=%s", i, i, c.MAC, escape(c.Boot))
		if c.Boot != "" || c.NetworkFirst {
			device += fmt.Sprintf(",bootindex=%d", order)
			order++
		}
		add("-device", device)
	}
	if s.Watchdog {
		add("-device", "i6300esb", "-action", "watchdog=reset")
	}
	for i := range s.Slots {
		add("-device", fmt.Sprintf("pcie-root-port,id=slot%d,chassis=%d", i, i+1))
	}
	if s.Retry > 0 {
		add("-boot", fmt.Sprintf("reboot-timeout=%d", s.Retry.Milliseconds()))
	}
	if s.State != "" {
		add("-loadvm", s.State)
	}
	return args
}

func (o *Out) option(id string) string {
	text := "user,id=" + id
	if o.Isolated {
		text += ",restrict=on"
	}
	for _, f := range o.Forwards {
		text += fmt.Sprintf(",hostfwd=tcp:%s-:%d", f.Host, f.Guest)
	}
	return text
}

// escape doubles commas, which separate QEMU's options.
func escape(text string) string { return strings.ReplaceAll(text, ",", ",,") }

package vnode

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/waltos/waltos/qemu/machine"
	"github.com/waltos/waltos/services/vnode/disk"
	"github.com/waltos/waltos/services/vnode/ipxe"
	"github.com/waltos/waltos/services/vnode/network"
)

// quitLimit is how long QEMU may take to end in order; the server gives this program 3 s.
const quitLimit = 2 * time.Second

// hardware is a virtual machine before it starts.
type hardware struct {
	host
	identity
	settings
	accelerator machine.Accelerator
	kernel      string // files
	initrd      string // "": none
	arguments   string // of the kernel
	image       string // folder of the image's root; "": not on this machine
	disks       []disk.File
	cards       []card
	usb         []string
}

// card is a network card.
type card struct {
	mac        string
	descriptor int // of its tap, in QEMU
	vhost      bool
}

// machine runs a virtual machine until it ends, or ctx does.
func (n *node) machine(ctx context.Context, who identity, s settings, boot *ipxe.Boot) error {
	path, err := exec.LookPath(n.host.program)
	if err != nil {
		return fmt.Errorf("cannot start the virtual machine: %w", err)
	}
	h := hardware{host: n.host, identity: who, settings: s, accelerator: n.accelerator, arguments: boot.Arguments, usb: n.usb}
	var passed []*os.File
	pass := func(f *os.File) (descriptor int) {
		passed = append(passed, f)
		return 2 + len(passed)
	}
	h.kernel = descriptorPath(pass(boot.Kernel))
	if boot.Initrd != nil {
		h.initrd = descriptorPath(pass(boot.Initrd))
	}
	if root := filepath.Join(nodesFolder, who.MAC, "fs"); isFolder(root) {
		h.image = root
	}
	if h.disks, err = disk.Prepare(ctx, n.disksPath, s.disks); err != nil {
		return err
	}
	cards, err := network.Plug(n.networksPath, who.Hostname, who.MAC, s.networks)
	if err != nil {
		return err
	}
	defer func() {
		if err := network.Unplug(); err != nil {
			n.say("%v", err) // the next start tries again
		}
	}()
	for _, c := range cards {
		h.cards = append(h.cards, card{mac: c.MAC, descriptor: pass(c.Tap), vhost: n.accelerator == machine.KVM && vhostWorks()})
	}
	program := machine.Program{Argv: []string{path}}
	cmd := program.Command(ctx, h.words()...)
	cmd.ExtraFiles = passed
	err = n.runQEMU(ctx, cmd, cards)
	n.ended(context.WithoutCancel(ctx))
	return err
}

// runQEMU runs QEMU with the console on its standard input and output.
func (n *node) runQEMU(ctx context.Context, cmd *exec.Cmd, cards []network.Card) error {
	keys, err := cmd.StdinPipe()
	if err != nil {
		network.Close(cards)
		return fmt.Errorf("cannot start the virtual machine: %w", err)
	}
	cmd.Stdout, cmd.Stderr = n.output, n.output
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = quitLimit
	started := make(chan error, 1)
	ended := make(chan error, 1)
	// QEMU dies with the thread that started it, which is kept for it, and gets what
	// privileges that thread has. The thread ends with this goroutine.
	go func() {
		runtime.LockOSThread()
		err := renounce()
		if err == nil {
			err = cmd.Start()
		}
		started <- err
		if err == nil {
			ended <- cmd.Wait()
		}
	}()
	err = <-started
	network.Close(cards) // they are QEMU's now, and go with it
	if err != nil {
		keys.Close()
		return fmt.Errorf("cannot start the virtual machine: %w", err)
	}
	typing, stop := context.WithCancel(ctx)
	fed := make(chan struct{})
	go func() {
		n.input.feed(typing, keys)
		close(fed)
	}()
	err = <-ended
	stop()
	keys.Close() // ends a write too
	<-fed
	if err != nil && ctx.Err() == nil && !errors.Is(err, io.ErrClosedPipe) {
		return fmt.Errorf("the virtual machine ended: %w", err)
	}
	return nil
}

// renounce makes what this thread starts unable to have the capabilities of this
// process, or any others.
func renounce() error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("cannot keep capabilities from QEMU: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("cannot keep privileges from QEMU: %w", err)
	}
	return nil
}

// descriptorPath names an open file in QEMU.
func descriptorPath(descriptor int) string { return fmt.Sprintf("/proc/self/fd/%d", descriptor) }

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// vhostWorks tells whether the kernel can move frames itself.
func vhostWorks() bool {
	f, err := os.OpenFile("/dev/vhost-net", os.O_RDWR, 0)
	if err != nil {
		return false
	}
	f.Close()
	return true
}

// words returns what follows the program in QEMU's argument list (node-protocols 6.3).
func (h *hardware) words() []string {
	var args []string
	add := func(words ...string) { args = append(args, words...) }
	processor := "host"
	if h.accelerator == machine.TCG {
		processor = h.accelerator.Processor()
	}
	add("-name", h.Hostname, "-accel", h.accelerator.Option(), "-no-user-config", "-nodefaults",
		"-machine", h.board, "-cpu", processor, "-m", fmt.Sprint(h.ram), "-smp", fmt.Sprint(h.cores))
	if len(h.disks) > 0 {
		add("-device", "virtio-scsi-pci,id=scsi")
	}
	for i, d := range h.disks {
		// Where this machine has no room left, the node sees its disk fail, and says so. By
		// default QEMU would stop it in silence, with nobody to let it go on.
		add("-drive", fmt.Sprintf("if=none,id=disk%d,format=raw,discard=unmap,werror=report,rerror=report,file=%s", i, escape(d.Path)),
			"-device", fmt.Sprintf("scsi-hd,drive=disk%d,bus=scsi.0,scsi-id=%d,product=QEMU-DISK", i, i))
	}
	for i, c := range h.cards {
		tap := fmt.Sprintf("tap,id=net%d,fd=%d", i, c.descriptor)
		if c.vhost {
			tap += ",vhost=on"
		}
		device := fmt.Sprintf("%s,netdev=net%d,mac=%s", h.card, i, c.mac)
		if strings.HasSuffix(h.card, "-pci") {
			device += ",romfile=" // the kernel is there: nothing is booted from the card
		}
		add("-netdev", tap, "-device", device)
	}
	if len(h.usb) > 0 {
		add("-device", "qemu-xhci,id=usb")
	}
	for _, port := range h.usb {
		add("-device", "usb-host,bus=usb.0,hostbus=1,hostport="+port)
	}
	add("-nographic", "-serial", "mon:stdio", "-no-reboot", "-kernel", h.kernel)
	if h.image != "" {
		add("-virtfs", "local,id=dev,path="+escape(h.image)+",security_model=none,mount_tag=walt_image,readonly=on")
	}
	if h.initrd != "" {
		add("-initrd", h.initrd)
	}
	if arguments := strings.TrimSpace(h.arguments + " " + h.kernelArguments); arguments != "" {
		add("-append", arguments+" ")
	}
	return args
}

// escape doubles commas, which separate QEMU's options.
func escape(text string) string { return strings.ReplaceAll(text, ",", ",,") }

package platform

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/waltos/waltos/qemu/ethernet"
	"github.com/waltos/waltos/qemu/machine"
)

// Host is a machine of a lab, running or not: the appliance or a node.
type Host struct {
	Name string
	MAC  string // of its card on the switch
	Kind string // "appliance", "BIOS node", "UEFI node"

	lab  *Lab
	spec machine.Spec

	mu      sync.Mutex
	machine *machine.Machine // the current one or the last; nil before the first start
	log     *os.File         // console lines of all its lives
}

// ConsoleFile is where the lines of its console are kept.
func (h *Host) ConsoleFile() string {
	return filepath.Join(h.lab.options.Folder, "consoles", h.Name+".log")
}

// Machine returns the running machine, or the last one.
func (h *Host) Machine() *machine.Machine {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.machine
}

// Console returns the console of Machine.
func (h *Host) Console() *machine.Console { return h.Machine().Console }

// Port returns its port of the switch, or nil while it is off.
func (h *Host) Port() *ethernet.Port { return h.lab.Switch.Port(h.Name) }

// Running tells whether the machine is on.
func (h *Host) Running() bool {
	m := h.Machine()
	if m == nil {
		return false
	}
	select {
	case <-m.Done():
		return false
	default:
		return true
	}
}

// PowerOn starts the machine; it does not wait for anything of the guest.
func (h *Host) PowerOn(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.machine != nil {
		select {
		case <-h.machine.Done():
		default:
			return fmt.Errorf("cannot start machine %s: it is running", h.Name)
		}
	}
	if old := h.lab.Switch.Port(h.Name); old != nil {
		old.Close()
	}
	socket, _, err := h.lab.Switch.Socket(h.Name)
	if err != nil {
		return fmt.Errorf("cannot start machine %s: %w", h.Name, err)
	}
	if h.log == nil {
		if h.log, err = os.Create(h.ConsoleFile()); err != nil {
			socket.Close()
			return fmt.Errorf("cannot keep the console of %s: %w", h.Name, err)
		}
	} else {
		fmt.Fprintf(h.log, "--- power on ---\n")
	}
	m, err := machine.Start(ctx, h.lab.options.Tools.QEMU, h.spec, h.log, socket)
	if err != nil {
		return err
	}
	h.machine = m
	h.lab.watch(h, m)
	return nil
}

// PowerCut takes the power away.
func (h *Host) PowerCut() {
	if m := h.Machine(); m != nil {
		m.Kill()
	}
}

// close ends the machine if it still runs, and its log.
func (h *Host) close() {
	h.PowerCut()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.log != nil {
		h.log.Close()
		h.log = nil
	}
}

package vnodes

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const (
	kvmDevice = "/dev/kvm"
	// Of linux/kvm.h: _IO(0xae, 0x00), and the only version since Linux 2.6.22.
	kvmGetAPIVersion = 0xae00
	kvmAPIVersion    = 12
	// _IO(0xae, 0x01): fails where the device file is there but not the processor's help.
	kvmCreateVM = 0xae01
)

// KVM tells why machines cannot be run by the processor; nil if they can.
func KVM() error {
	f, err := os.OpenFile(kvmDevice, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	version, err := unix.IoctlRetInt(int(f.Fd()), kvmGetAPIVersion)
	if err == nil && version != kvmAPIVersion {
		err = fmt.Errorf("it has version %d", version)
	}
	if err != nil {
		return fmt.Errorf("cannot use %s: %w", kvmDevice, err)
	}
	machine, err := unix.IoctlRetInt(int(f.Fd()), kvmCreateVM)
	if err != nil {
		return fmt.Errorf("cannot make a machine with %s: %w", kvmDevice, err)
	}
	return unix.Close(machine)
}

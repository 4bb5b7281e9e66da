// Package secureboot tells whether the firmware verifies what it boots: by what the kernel
// noted of it at its start (Linux Documentation/arch/x86/zero-page.rst), else by the variables
// of the UEFI (2.10, section 3.3; Linux Documentation/filesystems/efivarfs.rst), of which it
// writes none.
package secureboot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// State is what the firmware does. The values are part of the control protocol.
type State string

// The states that there are.
const (
	Enabled  State = "enabled"
	Disabled State = "disabled"
	// Setup is Disabled while the firmware takes the keys of whoever comes first.
	Setup State = "setup mode"
	None  State = "not EFI" // a BIOS, or no firmware at all
)

const (
	firmware = "/sys/firmware/efi"
	// noted is what the kernel's EFI stub found, on x86 only. The variables take an emulated
	// firmware two seconds.
	noted = "/sys/kernel/boot_params/data"

	notedAt      = 0x1ec
	notedEnabled = 3 // enum efi_secureboot_mode

	global    = "-8be4df61-93ca-11d2-aa0d-00e098032b8c"
	enabling  = "SecureBoot" + global
	settingUp = "SetupMode" + global
)

// Noted returns what the kernel has noted, which does not tell Setup from Disabled. The error
// is os.ErrNotExist where the kernel notes nothing: then Look must be called.
func Noted() (State, error) {
	if _, err := os.Stat(firmware); err != nil {
		return None, nil
	}
	return readNoted(noted)
}

// Look returns the state. It asks the firmware where the kernel does not know.
func Look() (State, error) {
	state, err := Noted()
	if err == nil && state != Disabled {
		return state, nil
	}
	variables, err := mount()
	if err != nil {
		return state, fmt.Errorf("cannot read the variables of the firmware: %w", err)
	}
	defer variables.Close()
	return read(fmt.Sprintf("/proc/self/fd/%d", variables.Fd()))
}

// mount returns the folder of the variables, which is attached nowhere.
func mount() (*os.File, error) {
	context, err := unix.Fsopen("efivarfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, err
	}
	defer unix.Close(context)
	if err := unix.FsconfigCreate(context); err != nil {
		return nil, err
	}
	fd, err := unix.Fsmount(context, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "efivarfs"), nil
}

func readNoted(file string) (State, error) {
	content, err := os.ReadFile(file)
	switch {
	case err != nil:
		return "", err
	case len(content) <= notedAt:
		return "", errors.New("the boot parameters are cut off")
	case content[notedAt] == notedEnabled:
		return Enabled, nil
	}
	return Disabled, nil
}

// read reads the variables in a folder.
func read(folder string) (State, error) {
	for _, one := range []struct {
		name string
		says State
	}{{enabling, Enabled}, {settingUp, Setup}} {
		set, err := isSet(filepath.Join(folder, one.name))
		if err != nil {
			return "", err
		}
		if set {
			return one.says, nil
		}
	}
	return Disabled, nil
}

// isSet reads a variable: four bytes of attributes, one of value. A firmware that does not
// know Secure Boot has it not.
func isSet(file string) (bool, error) {
	content, err := os.ReadFile(file)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	case len(content) != 5:
		return false, fmt.Errorf("the variable %s has another size", filepath.Base(file))
	}
	return content[4] == 1, nil
}

package boot

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// efiVariables is where the kernel shows the variables of an UEFI (its
// Documentation/filesystems/efivarfs.rst).
const efiVariables = "/sys/firmware/efi/efivars"

// secureBoot is the variable that says whether the firmware verifies what it
// loads (UEFI 2.10 §3.3).
const secureBoot = "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"

// bootParameters is what the kernel's EFI stub noted on x86 (Linux
// Documentation/arch/x86/zero-page.rst). Reading the variables instead takes an emulated
// firmware two seconds.
const bootParameters = "/sys/kernel/boot_params/data"

const (
	secureBootAt      = 0x1ec
	secureBootEnabled = 3 // enum efi_secureboot_mode
)

// readFirmware says whether Secure Boot is on. Nothing depends on it: a firmware that does not
// tell is no reason not to boot.
func (s *state) readFirmware() error {
	if _, err := os.Stat("/sys/firmware/efi"); err != nil {
		return nil // a BIOS, or no firmware at all
	}
	on, err := notedSecureBoot(bootParameters)
	if errors.Is(err, os.ErrNotExist) {
		on, err = askSecureBoot()
	}
	switch {
	case err != nil:
		s.console.Say("cannot read firmware settings: %v", err)
	case on:
		s.console.Say("Secure Boot is on")
	default:
		s.console.Say("Secure Boot is off")
	}
	return nil
}

func notedSecureBoot(file string) (on bool, err error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return false, err
	}
	if len(content) <= secureBootAt {
		return false, errors.New("the boot parameters are cut off")
	}
	return content[secureBootAt] == secureBootEnabled, nil
}

// askSecureBoot asks the firmware.
func askSecureBoot() (on bool, err error) {
	loader, err := openLoader()
	if err != nil {
		return false, err
	}
	if err := loader.Load("efivarfs"); err != nil {
		return false, err
	}
	if err := (Mount{"efivarfs", efiVariables, "efivarfs", safe | unix.MS_RDONLY, ""}).Do(); err != nil {
		return false, err
	}
	defer unix.Unmount(efiVariables, unix.MNT_DETACH)
	return readSecureBoot(efiVariables)
}

// readSecureBoot reads the variable: four bytes of attributes, one of value. A
// firmware that does not know Secure Boot has it not.
func readSecureBoot(dir string) (on bool, err error) {
	content, err := os.ReadFile(filepath.Join(dir, secureBoot))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if len(content) != 5 {
		return false, errors.New("the variable SecureBoot has another size")
	}
	return content[4] == 1, nil
}

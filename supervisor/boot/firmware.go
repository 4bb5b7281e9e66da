package boot

import (
	"errors"
	"os"

	"github.com/waltos/waltos/supervisor/secureboot"
)

// readFirmware says whether Secure Boot is on. Nothing depends on it: a firmware that does not
// tell is no reason not to boot.
func (s *state) readFirmware() error {
	found, err := secureboot.Noted()
	if errors.Is(err, os.ErrNotExist) {
		found, err = askFirmware()
	}
	switch {
	case err != nil:
		s.console.Say("cannot read firmware settings: %v", err)
	case found == secureboot.Enabled:
		s.console.Say("Secure Boot is on")
	case found != secureboot.None:
		s.console.Say("Secure Boot is off")
	}
	return nil
}

func askFirmware() (secureboot.State, error) {
	loader, err := openLoader()
	if err != nil {
		return "", err
	}
	if err := loader.Load("efivarfs"); err != nil {
		return "", err
	}
	return secureboot.Look()
}

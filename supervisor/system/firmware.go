package system

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/waltos/waltos/services/atomicfile"
	"github.com/waltos/waltos/supervisor/secureboot"
)

// firmwareFolder is where the kernel looks for the firmware of devices first: what the image
// may not contain, administrators put there.
const firmwareFolder = "/var/lib/walt/firmware"

func useFirmware() error {
	if err := os.WriteFile("/sys/module/firmware_class/parameters/path", []byte(firmwareFolder), 0); err != nil {
		return fmt.Errorf("cannot have firmware of devices read from %s: %w", firmwareFolder, err)
	}
	return nil
}

// readSecureBoot is done aside: variables take some firmware seconds.
func (s *system) readSecureBoot() {
	state, err := secureboot.Look()
	if err != nil {
		s.console.Say("%v", err)
	}
	s.mu.Lock()
	s.secureBoot = state
	s.mu.Unlock()
}

// maxFirmware bounds what is copied, all files together.
const maxFirmware = 128 << 20

// copyFirmware copies a folder of firmware, if there is one, over another.
func copyFirmware(from, to string) error {
	left := int64(maxFirmware)
	err := filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		below, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		content, err := io.ReadAll(io.LimitReader(f, left+1))
		if err != nil {
			return err
		}
		if left -= int64(len(content)); left < 0 {
			return fmt.Errorf("there are more than %d MiB", maxFirmware>>20)
		}
		target := filepath.Join(to, below)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		return atomicfile.Write(target, content, 0o644)
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot copy firmware of devices: %w", err)
	}
	return nil
}

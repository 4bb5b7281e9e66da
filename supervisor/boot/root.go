package boot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/waltos/waltos/services/kmod"
	"github.com/waltos/waltos/supervisor/disk"
	"github.com/waltos/waltos/supervisor/uevent"
	"github.com/waltos/waltos/supervisor/verity"
	"golang.org/x/sys/unix"
)

// rootTime is how long the disk may take to appear: USB and RAID controllers are slow.
const rootTime = 60 * time.Second

// refusedTime is how long another disk is waited for when the one that is there holds
// another root.
const refusedTime = 5 * time.Second

// retryTime is how often it is looked for although no event came.
const retryTime = time.Second

// drivers that no device asks for. Of the optional ones, two are aliases of what computes hashes,
// and one keeps the kernel's last words in the variables of a firmware that has some.
var (
	drivers  = []string{"dm-mod", "dm-verity", "erofs", "ext4"}
	optional = []string{"overlay", "crypto-sha256", "crypto-crc32c", "efi-pstore"}
)

func (s *state) readCommandLine() error {
	name, ok := s.sealed("walt.root")
	if !ok || name == "" {
		return errors.New("walt.root= is missing")
	}
	s.name = name
	text, ok := s.sealed("walt.verity")
	if !ok {
		return errors.New("walt.verity= is missing; an unverified root is not booted")
	}
	var err error
	s.verity, err = verity.Parse(text)
	return err
}

// loadDrivers loads what the devices ask for. A driver that is missing shows later, by
// what it does not drive.
func (s *state) loadDrivers() error {
	loader, err := openLoader()
	if err != nil {
		s.console.Say("no loadable drivers: %v", err)
		return nil
	}
	result, err := loader.Coldplug(context.Background(), "/sys/devices")
	if err != nil {
		return err
	}
	s.console.Say("drivers for %d devices: %s", result.Devices, strings.Join(result.Loaded, " "))
	for _, failure := range result.Failed {
		s.console.Say("%v", failure)
	}
	for _, name := range drivers {
		err := loader.Load(name)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			s.console.Say("%v", err)
		}
	}
	for _, name := range optional {
		_ = loader.Load(name) // what needs it will say so
	}
	return nil
}

func openLoader() (*kmod.Loader, error) {
	dir, err := kmod.Folder()
	if err != nil {
		return nil, err
	}
	return kmod.NewLoader(dir)
}

// findRoot waits for a partition of the wanted name whose hash tree is the expected one:
// an installation medium may hold a partition of the same name as the disk. The root of
// a live system came with the initramfs.
func (s *state) findRoot() (err error) {
	if s.name == live {
		s.root, err = s.openLive()
		return err
	}
	events, err := uevent.Listen()
	if err != nil {
		return err
	}
	defer events.Close()
	refused := map[string]error{}
	said := false
	for end := time.Now().Add(rootTime); time.Now().Before(end); {
		for _, p := range disk.Partitions() {
			if p.Name != s.name || refused[p.Device] != nil {
				continue
			}
			if err := s.check(p); err != nil {
				s.console.Say("%s on %s is refused: %v", s.name, p.Device, err)
				refused[p.Device] = err
				end = earlier(end, time.Now().Add(refusedTime))
				continue
			}
			s.root = p
			s.console.Say("root %s is %s", s.name, p.Device)
			return nil
		}
		event, err := events.Next(time.Now().Add(retryTime))
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			if !said {
				s.console.Say("waiting for a disk with partition %s ...", s.name)
				said = true
			}
		case err != nil:
			return err
		case event["MODALIAS"] != "":
			s.hotplug(event["MODALIAS"])
		}
	}
	if len(refused) > 0 {
		var all []error
		for device, err := range refused {
			all = append(all, fmt.Errorf("%s: %w", device, err))
		}
		return fmt.Errorf("no partition %s can be used: %w", s.name, errors.Join(all...))
	}
	return fmt.Errorf("no partition %s within %v; disks seen: %s", s.name, rootTime, disks())
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func (s *state) hotplug(alias string) {
	loader, err := openLoader()
	if err != nil {
		return
	}
	found, err := loader.Catalog.Match([]string{alias})
	if err != nil {
		return
	}
	for _, module := range found[alias] {
		if !loader.Settings.Wanted(module) {
			continue
		}
		_ = loader.Load(module) // most devices are not what is waited for
	}
}

func disks() string {
	entries, err := os.ReadDir("/sys/block")
	if err != nil || len(entries) == 0 {
		return "none"
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

// check compares the root hash before the kernel, which only knows how to panic, does.
func (s *state) check(p disk.Partition) error {
	f, err := os.Open(p.Device)
	if err != nil {
		return fmt.Errorf("cannot open root: %w", err)
	}
	defer f.Close()
	return s.verity.Check(f)
}

func (s *state) openRoot() error {
	var err error
	s.device, err = verity.Open("root", s.root.Number, s.verity)
	return err
}

func (s *state) mountRoot() error {
	// The node of a device appears a moment after the device.
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(s.device); err == nil {
			break
		}
	}
	return Mount{s.device, Sysroot, "erofs", unix.MS_RDONLY, ""}.Do()
}

package system

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/services/kmod"
	"github.com/waltos/waltos/supervisor/boot"
	"github.com/waltos/waltos/supervisor/disk"
	"github.com/waltos/waltos/supervisor/power"
	"github.com/waltos/waltos/supervisor/uevent"
	"golang.org/x/sys/unix"
)

// DriversName is argument 0 of the process that loads drivers: the index of modules is
// large, and PID 1 stays small.
const DriversName = "walt-drivers"

// early are loaded before any device asks: what switches the machine off in order, what
// the network asks the kernel for, each of which would be a process of its own, and the
// interfaces of virtual machines, which no device announces.
var early = []string{
	"button", "evdev",
	"bridge", "dummy", "nf_tables", "nft_chain_nat", "nft_masq", "nft_ct", "nft_fib_ipv4", "af_packet",
	"tun", "vhost_net",
}

// LoadDrivers is the program DriversName: without arguments it loads the drivers of all
// devices, with arguments those of the given modaliases, or modules by name.
func LoadDrivers(args []string) error {
	dir, err := kmod.Folder()
	if err != nil {
		return err
	}
	loader, err := kmod.NewLoader(dir)
	if err != nil {
		return err
	}
	if len(args) == 0 {
		earlyErr := loader.Load(early...)
		// Priority belongs to the thread, which is the one that loads.
		runtime.LockOSThread()
		loader.Relax = func() { _ = unix.Setpriority(unix.PRIO_PROCESS, 0, lowPriority) }
		result, err := loader.Coldplug(context.Background(), "/sys/devices")
		fmt.Printf("%d devices, drivers: %s\n", result.Devices, strings.Join(result.Loaded, " "))
		return errors.Join(append(result.Failed, earlyErr, err)...)
	}
	found, err := loader.Catalog.Match(args)
	if err != nil {
		return err
	}
	var failures []error
	for _, arg := range args {
		modules := found[arg]
		named := loader.Catalog.Path(arg) != ""
		if named {
			modules = []string{arg}
		}
		for _, module := range modules {
			if !named && !loader.Settings.Wanted(module) {
				continue
			}
			if err := loader.Load(module); err != nil && !errors.Is(err, unix.ENODEV) {
				failures = append(failures, err)
			}
		}
	}
	return errors.Join(failures...)
}

// lowPriority is the nice value of work that nobody waits for.
const lowPriority = 15

// hotplugTime is how long aliases are gathered before a process loads their drivers: one
// new device brings several.
const hotplugTime = 200 * time.Millisecond

// watchDevices sees to what is there, and to what comes and goes: it loads drivers, names
// disks and network interfaces, shares device files, and watches power buttons.
func (s *system) watchDevices() {
	events, err := uevent.Listen()
	if err != nil {
		s.console.Say("%v; devices attached later are not noticed", err)
	}
	if err := shareAll("/dev"); err != nil { // those that came before the listening
		s.console.Say("%v", err)
	}
	names := newNames(s.console.Say)
	coldplug := make(chan struct{})
	go func() {
		defer close(coldplug)
		defer s.report.Begin("load drivers (beside)")()
		s.runDrivers(nil)
		s.completeKernel()
		s.substituteWatchdog()
	}()
	buttons := map[string]bool{}
	s.watchButtons(buttons)
	if events == nil {
		<-coldplug
		s.watchButtons(buttons)
		names.tell(nil)
		return
	}
	fresh := map[string]string{} // modalias by device
	for {
		var deadline time.Time
		if len(fresh) > 0 {
			deadline = time.Now().Add(hotplugTime)
		}
		event, err := events.Next(deadline)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			select {
			case <-coldplug:
			default:
				continue // it sees to most of them
			}
			if aliases := undriven(fresh); len(aliases) > 0 {
				s.runDrivers(aliases)
			}
			clear(fresh)
		case err != nil:
			s.console.Say("%v; devices attached later are not noticed", err)
			return
		case len(event) == 0: // some were lost: look at all
			<-coldplug
			go s.runDrivers(nil)
			s.watchButtons(buttons)
			names.tell(nil)
		case event["SUBSYSTEM"] == "block":
			names.tell(event)
		case event["ACTION"] != "add":
		case event["SUBSYSTEM"] == "net":
			names.tell(event)
		case event["SUBSYSTEM"] == "input":
			s.watchButtons(buttons)
		case event["SUBSYSTEM"] == "misc":
			if err := share("/dev", event["DEVNAME"]); err != nil {
				s.console.Say("%v", err)
			}
		case event["MODALIAS"] != "":
			fresh[event["DEVPATH"]] = event["MODALIAS"]
		}
	}
}

// undriven returns the aliases of the devices that no driver has taken, in order.
func undriven(fresh map[string]string) []string {
	var aliases []string
	for device, alias := range fresh {
		if !driven(device) && !slices.Contains(aliases, alias) {
			aliases = append(aliases, alias)
		}
	}
	slices.Sort(aliases)
	return aliases
}

func driven(device string) bool {
	_, err := os.Lstat(filepath.Join("/sys", device, "driver"))
	return err == nil
}

// runDrivers runs this program as DriversName and records what it says. Without
// arguments it would be another cold plug: pass nil for that only.
func (s *system) runDrivers(aliases []string) {
	reading, writing, err := os.Pipe()
	if err != nil {
		s.console.Say("cannot load drivers: %v", err)
		return
	}
	defer reading.Close()
	child, err := s.reaper.Start(program, append([]string{DriversName}, aliases...), &os.ProcAttr{
		Dir: "/", Files: []*os.File{nil, writing, writing},
	})
	writing.Close()
	if err != nil {
		s.console.Say("cannot load drivers: %v", err)
		return
	}
	text, _ := io.ReadAll(io.LimitReader(reading, 64<<10))
	child.Wait()
	for line := range strings.Lines(string(text)) {
		s.journal.Append("drivers", strings.TrimSpace(line))
	}
}

func (s *system) watchButtons(watched map[string]bool) {
	for _, path := range power.Devices() {
		if watched[path] {
			continue
		}
		watched[path] = true
		go func() {
			_ = power.Watch(path, func() {
				s.console.Say("power button: switching off")
				s.Shutdown("poweroff")
			})
		}()
	}
}

// readFirmware reads the configuration that QEMU passes.
func (s *system) readFirmware() ([]byte, error) {
	if _, err := os.Stat("/sys/firmware/qemu_fw_cfg"); err != nil {
		s.runDrivers([]string{"qemu_fw_cfg"})
	}
	return readBounded(firmwareSite)
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, hcl.MaxFileSize+1))
}

// readESP reads walt.hcl of the EFI system partition, where any other machine can write
// it onto the flashed disk. The same goes for the firmware of a network card, without which
// nobody could bring it.
func (s *system) readESP() ([]byte, error) {
	const target = "/run/walt/esp"
	for _, p := range disk.Partitions() {
		if p.Name != "esp" {
			continue
		}
		s.runDrivers([]string{"vfat", "nls_cp437", "nls_ascii", "nls_iso8859-1"})
		m := boot.Mount{Source: p.Device, Target: target, Type: "vfat", Flags: safe | unix.MS_RDONLY}
		if err := m.Do(); err != nil {
			return nil, err
		}
		text, err := readBounded(target + "/walt.hcl")
		if copyErr := copyFirmware(target+"/firmware", firmwareFolder); copyErr != nil {
			s.console.Say("%v", copyErr)
		}
		if unmountErr := unix.Unmount(target, 0); unmountErr != nil {
			return nil, fmt.Errorf("cannot unmount %s: %w", target, unmountErr)
		}
		_ = os.Remove(target)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		return text, err
	}
	return nil, os.ErrNotExist
}

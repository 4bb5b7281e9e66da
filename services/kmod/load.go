package kmod

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Folder returns the module folder of the running kernel.
func Folder() (string, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "", fmt.Errorf("cannot ask for the kernel release: %w", err)
	}
	return filepath.Join("/lib/modules", unix.ByteSliceToString(name.Release[:])), nil
}

// Loader loads modules into the running kernel. It is safe for concurrent use.
type Loader struct {
	Catalog *Catalog
	// Settings are the options of modules, and those that are not wanted.
	Settings Settings
	// Relax, if set, is called before a cold plug loads what nothing waits for: for the
	// caller to give way to others.
	Relax func()

	dir string

	mu   sync.Mutex
	done map[string]bool
}

// NewLoader opens a module folder, as [Folder] returns, with the settings of this machine.
// Settings that cannot be read are no reason to load nothing.
func NewLoader(dir string) (*Loader, error) {
	catalog, err := Open(os.DirFS(dir))
	if err != nil {
		return nil, err
	}
	l := &Loader{Catalog: catalog, dir: dir, done: map[string]bool{}}
	if l.Settings, err = ReadSettings(folders...); err != nil {
		log.Print(err)
	}
	return l, nil
}

// Load loads the named modules (or aliases) with what they need; what is already
// there is skipped. All names are tried; the errors are joined. An absent file is
// fs.ErrNotExist, a driver that finds no device of its own ENODEV.
func (l *Loader) Load(names ...string) error {
	var failures []error
	for _, name := range names {
		steps, err := l.Catalog.Closure(name)
		if err != nil {
			failures = append(failures, err)
			continue
		}
		failures = append(failures, l.run(steps))
	}
	return errors.Join(failures...)
}

func (l *Loader) run(steps []Step) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, step := range steps {
		if l.done[step.Name] {
			continue
		}
		err := insert(filepath.Join(l.dir, step.Path), l.Settings.Options(step.Name))
		if err != nil && !step.Soft {
			return fmt.Errorf("cannot load module %s: %w", step.Name, err)
		}
		if err == nil {
			l.done[step.Name] = true
		}
	}
	return nil
}

// insert is one finit_module(2); the kernel itself decompresses what has a suffix
// after .ko.
func insert(path, options string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	flags := 0
	if !strings.HasSuffix(path, ".ko") {
		flags = unix.MODULE_INIT_COMPRESSED_FILE
	}
	err = unix.FinitModule(int(f.Fd()), options, flags)
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

// Report is what a cold plug did.
type Report struct {
	Devices int      // that have a modalias
	Loaded  []string // modules asked for, by name
	Failed  []error
}

// unwanted modules match devices but do harm or nothing (after Debian's blacklist).
var unwanted = []string{"pcspkr", "evbug", "usbmouse", "usbkbd", "eepro100", "de4x5", "eth1394", "sb_edac", "snd_pcsp"}

// Coldplug loads what the devices present ask for: every modalias below sysfs
// ("/sys/devices") is matched, and the modules that are wanted are loaded. Loading a bus
// driver makes new devices appear, so passes follow each other until one finds nothing new.
func (l *Loader) Coldplug(ctx context.Context, sysfs string) (Report, error) {
	var report Report
	seen, tried := map[string]bool{}, map[string]bool{}
	for ctx.Err() == nil {
		var fresh []string
		for _, alias := range Modaliases(sysfs) {
			if !seen[alias] {
				seen[alias] = true
				fresh = append(fresh, alias)
			}
		}
		report.Devices = len(seen)
		if len(fresh) == 0 {
			return report, nil
		}
		slices.SortStableFunc(fresh, func(a, b string) int { return cmp.Compare(urgency(a), urgency(b)) })
		found, err := l.Catalog.Match(fresh)
		if err != nil {
			return report, err
		}
		for _, alias := range fresh {
			if urgency(alias) != urgent && l.Relax != nil {
				l.Relax()
			}
			for _, module := range found[alias] {
				if tried[module] || !l.Settings.Wanted(module) {
					continue
				}
				tried[module] = true
				err := l.Load(module)
				switch {
				case err == nil:
					report.Loaded = append(report.Loaded, module)
				case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENODEV):
					// Not in this (initramfs) folder, or no device for it after all.
				default:
					report.Failed = append(report.Failed, err)
				}
			}
		}
	}
	return report, ctx.Err()
}

const (
	urgent = iota
	usual
	optional
)

// urgency orders a cold plug: disks and networks first, what is waited for; the many
// optimisations that a processor asks for last.
func urgency(alias string) int {
	switch kind, _, _ := strings.Cut(alias, ":"); kind {
	case "virtio", "nvme", "scsi":
		return urgent
	case "pci":
		// The class is in the alias: 01 is storage, 02 network.
		if strings.Contains(alias, "bc01") || strings.Contains(alias, "bc02") {
			return urgent
		}
	case "cpu":
		return optional
	}
	return usual
}

// Modaliases returns the distinct modalias texts of all devices below a folder,
// sorted.
func Modaliases(sysfs string) []string {
	seen := map[string]bool{}
	_ = filepath.WalkDir(sysfs, func(path string, entry fs.DirEntry, err error) error {
		// Devices come and go while the walk runs; what cannot be read is gone.
		if err != nil || entry.Name() != "modalias" || entry.IsDir() {
			return nil
		}
		if text, err := os.ReadFile(path); err == nil {
			if alias := strings.TrimSpace(string(text)); alias != "" {
				seen[alias] = true
			}
		}
		return nil
	})
	list := make([]string, 0, len(seen))
	for alias := range seen {
		list = append(list, alias)
	}
	sort.Strings(list)
	return list
}

// Modprobe is the command that the kernel runs for request_module: "modprobe -q --
// NAME". Every option that it or a person may give is accepted and without effect.
func Modprobe(args []string) error {
	var names []string
	for i, arg := range args {
		if arg == "--" {
			names = append(names, args[i+1:]...)
			break
		}
		if !strings.HasPrefix(arg, "-") {
			names = append(names, arg)
		}
	}
	if len(names) == 0 {
		return errors.New("usage: modprobe NAME")
	}
	dir, err := Folder()
	if err != nil {
		return err
	}
	loader, err := NewLoader(dir)
	if err != nil {
		return err
	}
	// Further arguments are module options for modprobe(8); the kernel gives none.
	return loader.Load(names[0])
}

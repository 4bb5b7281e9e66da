package watchdog

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Device is an open watchdog: it counts down.
type Device interface {
	Name() string
	// Timeout is what it counts from: hardware knows some values only.
	Timeout() time.Duration
	Feed() error
	// Disarm ends the countdown, if the device can be told so, and closes it.
	Disarm() error
}

// software is what the kernel's substitute for hardware calls itself: it resets only a
// machine whose kernel still lives.
const software = "Software Watchdog"

// preTime is how long before the reset the kernel panics, where the device can do that: the
// panic tells more than a reset. The kernel's driver of the i6300ESB, which the lab has, offers
// none; that of the substitute for hardware does.
const preTime = 5 * time.Second

// Finder finds the watchdog of the machine.
type Finder struct {
	Class string // "/sys/class/watchdog"
	Dev   string // "/dev"
}

// Open opens the best watchdog that is there and sets its time; fs.ErrNotExist: none is.
func (f Finder) Open(timeout time.Duration) (Device, error) {
	name := f.best()
	if name == "" {
		return nil, fmt.Errorf("no watchdog: %w", fs.ErrNotExist)
	}
	file, err := os.OpenFile(filepath.Join(f.Dev, name), os.O_WRONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open watchdog: %w", err)
	}
	d := &device{file: file, name: f.identity(name), timeout: timeout}
	d.prepare()
	if d.pre {
		// Without it the kernel only logs that the reset is near.
		_ = os.WriteFile(filepath.Join(f.Class, name, "pretimeout_governor"), []byte("panic"), 0)
	}
	return d, nil
}

// Any tells whether the machine has a watchdog.
func (f Finder) Any() bool { return f.best() != "" }

// best prefers hardware, and what came first.
func (f Finder) best() string {
	found, err := filepath.Glob(filepath.Join(f.Class, "watchdog[0-9]*"))
	if err != nil {
		return ""
	}
	best := ""
	for _, path := range found {
		name := filepath.Base(path)
		if best == "" || f.identity(best) == software {
			best = name
		}
	}
	return best
}

func (f Finder) identity(name string) string {
	text, err := os.ReadFile(filepath.Join(f.Class, name, "identity"))
	if err != nil {
		return name
	}
	return strings.TrimSpace(string(text))
}

// device is a watchdog of Linux (Documentation/watchdog/watchdog-api): any byte written
// feeds it, a V before it is closed ends the countdown.
type device struct {
	file    *os.File
	name    string
	timeout time.Duration
	pre     bool
}

// prepare sets the times. A device that has no choice keeps its own.
func (d *device) prepare() {
	fd := int(d.file.Fd())
	info, err := unix.IoctlGetWatchdogInfo(fd)
	if err != nil {
		return
	}
	if info.Options&unix.WDIOF_SETTIMEOUT != 0 {
		_ = unix.IoctlSetPointerInt(fd, unix.WDIOC_SETTIMEOUT, int(d.timeout/time.Second))
	}
	if seconds, err := unix.IoctlGetInt(fd, unix.WDIOC_GETTIMEOUT); err == nil && seconds > 0 {
		d.timeout = time.Duration(seconds) * time.Second
	}
	if info.Options&unix.WDIOF_PRETIMEOUT != 0 && d.timeout > 2*preTime {
		d.pre = unix.IoctlSetPointerInt(fd, unix.WDIOC_SETPRETIMEOUT, int(preTime/time.Second)) == nil
	}
}

// Name implements Device.
func (d *device) Name() string { return d.name }

// Timeout implements Device.
func (d *device) Timeout() time.Duration { return d.timeout }

// Feed implements Device.
func (d *device) Feed() error {
	if _, err := d.file.Write([]byte{0}); err != nil {
		return fmt.Errorf("cannot feed watchdog: %w", err)
	}
	return nil
}

// Disarm implements Device.
func (d *device) Disarm() error {
	_, err := d.file.Write([]byte("V"))
	if err = errors.Join(err, d.file.Close()); err != nil {
		return fmt.Errorf("cannot end the countdown of the watchdog: %w", err)
	}
	return nil
}

// Package boot is the first life of PID 1, in the initramfs: it finds the root that the
// kernel command line names, has the kernel verify every block of it, prepares the data
// partition, and becomes the init of that root.
//
// Parameters: walt.root=PARTITION-NAME, walt.verity=ROOT,SALT,BLOCKS,HASHSTART (see package
// verity), panic=SECONDS; walt.release=KEY is for others: who may sign upgrades (a key of
// minisign). There is no way to boot an unverified root. With Secure Boot the
// command line is that of the signed UKI: systemd-stub then drops what a boot loader
// passes. Yet it appends what the firmware's tables (SMBIOS) ask for, so of the
// parameters that say what to trust the first one counts.
package boot

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/waltos/waltos/supervisor/console"
	"github.com/waltos/waltos/supervisor/crash"
	"github.com/waltos/waltos/supervisor/disk"
	"github.com/waltos/waltos/supervisor/report"
	"github.com/waltos/waltos/supervisor/screen"
	"github.com/waltos/waltos/supervisor/verity"
	"golang.org/x/sys/unix"
)

// Sysroot is where the new root is mounted before it becomes the root.
const Sysroot = "/sysroot"

// Init is the program that the new root is handed to.
const Init = "/sbin/init"

// Step is one step of the boot; its name tells what is done, advice what a person can
// do when it fails.
type Step struct {
	Name   string
	Advice string
	Do     func(*state) error
}

func (s Step) String() string { return s.Name }

// Steps is the whole boot, in order.
func Steps() []Step {
	return []Step{
		{"mount kernel file systems", "the kernel lacks a basic file system; use the kernel of the release", (*state).mountKernel},
		{"read kernel command line", "boot with the command line of the release", (*state).readCommandLine},
		{"load drivers", "the initramfs is damaged; write the disk image again", (*state).loadDrivers},
		{"read firmware settings", "update the firmware of the machine", (*state).readFirmware},
		{"find root partition", "check that the disk is attached and holds the WalT image", (*state).findRoot},
		{"open verified root", "the system is not the one this kernel was built for, or damaged; write the disk image again, or boot the other slot", (*state).openRoot},
		{"mount root", "the system is damaged; write the disk image again, or boot the other slot", (*state).mountRoot},
		{"prepare data partition", "WalT keeps its data in the free space of its disk, in a partition named data", (*state).prepareData},
		{"mount data partition", "repair it from another system with e2fsck, then boot again; nothing was erased", (*state).mountData},
		{"switch to root", "write the disk image again", (*state).switchRoot},
	}
}

// state is what the steps hand on.
type state struct {
	console *console.Console
	report  *report.Report
	verity  verity.Target
	name    string // walt.root
	root    disk.Partition
	device  string // the verified root
	data    disk.Data
}

// Run boots and does not return.
func Run() {
	kernel := report.Uptime()
	s := &state{report: &report.Report{}}
	for _, step := range Steps() {
		end := s.report.Begin(step.Name)
		err := step.Do(s)
		end()
		if s.console == nil { // after the first step there is a /dev
			s.console = console.Open()
			s.console.Say("initramfs: the kernel took %.2f s", kernel.Seconds())
			if err := crash.Guard(start); err != nil {
				s.console.Say("%v", err)
			}
		}
		if err != nil {
			Fail(s.console, step.Name, err, step.Advice)
		}
	}
}

// start starts a process that nobody waits for: PID 1 becomes another program soon, which does.
func start(path string, argv []string, attr *os.ProcAttr) error {
	p, err := os.StartProcess(path, argv, attr)
	if err != nil {
		return err
	}
	return p.Release()
}

// attention is how long a person has at least to come to the console of a failed boot,
// if it reboots at all.
const attention = 30 * time.Second

// Fail says on all consoles what failed and what to do, and lets people look at it at the
// consoles. The machine reboots when nobody comes within the time that panic= gives, or
// nobody is there any more; without panic= it waits for ever. Fail does not return.
func Fail(c *console.Console, what string, err error, advice string) {
	if c == nil {
		c = console.Open()
	}
	c.Alarm("FAILED: %s: %v", what, err)
	c.Alarm("what to do: %s", advice)
	limit := time.Duration(panicSeconds()) * time.Second
	switch {
	case limit == 0:
		c.Alarm("the machine stays like this; switch it off and on to try again")
	case limit > 0:
		limit = max(limit, attention)
		c.Alarm("the machine reboots in %v; press Enter to stop that", limit)
	}
	began := time.Now()
	if limit >= 0 {
		cmd := exec.Command("/proc/self/exe", "-what", what, "-cause", err.Error(), "-advice", advice, "-reboot", limit.String())
		cmd.Args[0] = screen.Name
		if err := cmd.Run(); err != nil {
			c.Alarm("no console: %v", err)
			time.Sleep(limit - time.Since(began))
		}
	}
	if limit == 0 {
		rest()
	}
	restart(c)
}

func restart(c *console.Console) {
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART); err != nil {
		c.Alarm("cannot reboot: %v", err)
	}
	rest()
}

// rest does nothing for ever: PID 1 may not end.
func rest() {
	for {
		time.Sleep(time.Hour)
	}
}

// panicSeconds is the kernel parameter panic=.
func panicSeconds() int {
	value, ok := Parameter("panic")
	if !ok {
		return 0
	}
	seconds, err := strconv.Atoi(value)
	if err != nil {
		return 0
	}
	return seconds
}

// sealed returns the value of a kernel parameter that says what to trust.
func (s *state) sealed(name string) (value string, ok bool) {
	text, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return "", false
	}
	all := values(string(text), name)
	if len(all) == 0 {
		return "", false
	}
	for _, other := range all[1:] {
		s.console.Alarm("the command line says %s= again: %s; ignored, the first one counts", name, other)
	}
	return all[0], true
}

// Parameter returns the value of a kernel parameter; the last one counts, of ours the first.
func Parameter(name string) (value string, ok bool) {
	text, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return "", false
	}
	return parameter(string(text), name)
}

func parameter(line, name string) (value string, ok bool) {
	all := values(line, name)
	if len(all) == 0 {
		return "", false
	}
	if strings.HasPrefix(name, "walt.") {
		return all[0], true
	}
	return all[len(all)-1], true
}

// values returns all values of a parameter of a kernel command line.
func values(line, name string) (all []string) {
	for field := range strings.FieldsSeq(line) {
		if v, found := strings.CutPrefix(field, name+"="); found {
			all = append(all, strings.Trim(v, `"`))
		}
	}
	return all
}

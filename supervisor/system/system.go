// Package system is the second life of PID 1, in the verified root: it makes the folders,
// applies the site configuration, starts the units, answers waltctl, and ends the machine
// in order. What fails on the way is said on the console; only a system without units or
// control groups is worse than none.
package system

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/waltos/waltos/services/periodic"
	"github.com/waltos/waltos/supervisor/boot"
	"github.com/waltos/waltos/supervisor/cgroup"
	"github.com/waltos/waltos/supervisor/clock"
	"github.com/waltos/waltos/supervisor/console"
	"github.com/waltos/waltos/supervisor/control"
	"github.com/waltos/waltos/supervisor/crash"
	"github.com/waltos/waltos/supervisor/journal"
	"github.com/waltos/waltos/supervisor/loopback"
	"github.com/waltos/waltos/supervisor/memory"
	"github.com/waltos/waltos/supervisor/process"
	"github.com/waltos/waltos/supervisor/reap"
	"github.com/waltos/waltos/supervisor/report"
	"github.com/waltos/waltos/supervisor/secureboot"
	"github.com/waltos/waltos/supervisor/security"
	"github.com/waltos/waltos/supervisor/site"
	"github.com/waltos/waltos/supervisor/unit"
	"github.com/waltos/waltos/supervisor/watchdog"
	"golang.org/x/sys/unix"
)

// Paths of the appliance.
const (
	program      = "/usr/lib/walt/supervisor"
	identityFile = "/usr/lib/walt/appliance.json"
	journalDir   = "/var/log/walt/journal"

	// below which folders of units are made
	runFolderOfUnits   = "/run"
	stateFolderOfUnits = "/var/lib"
)

// ownName is the unit under which the supervisor's own lines are in the journal.
const ownName = "supervisor"

// stopTime bounds the stop of all units at the end.
const stopTime = 90 * time.Second

// heap is what PID 1 should do with; it is a target of the collector, not a limit.
const heap = 8 << 20

// threads are what PID 1 has from the beginning: a machine without room for one more must not be
// its end.
const threads = 24

// guardTime is how long it is waited before another crash reporter is started.
const guardTime = time.Second

type system struct {
	console  *console.Console
	report   *report.Report
	journal  *journal.Journal
	reaper   *reap.Reaper
	launcher *process.Launcher
	manager  *unit.Manager
	history  *control.History
	refusals *security.Refusals
	clock    *clock.Keeper
	watchdog *watchdog.Guard
	cgroups  string // folder of the units' control groups

	configuring sync.Mutex  // held by what changes the site file
	shutdown    chan string // "poweroff" or "reboot"

	mu         sync.Mutex
	site       site.Result
	secureBoot secureboot.State
	summary    string // last one printed
	ready      time.Duration
	everSaid   bool
	ending     bool
}

// Run is PID 1 until the machine ends. It does not return.
func Run() {
	debug.SetGCPercent(50)
	debug.SetMemoryLimit(heap)
	process.KeepThreads(threads)
	s := &system{
		console: console.Open(), report: report.Load(report.Path), journal: journal.New(journal.DefaultLimit),
		reaper: reap.New(), history: control.NewHistory(), refusals: security.NewRefusals("/proc"), shutdown: make(chan string, 1),
	}
	s.watchdog = s.newGuard()
	console.ShowNotices()
	s.listenSignals()
	s.guard()
	s.cgroups = s.prepare()
	s.startUnits()
	go memory.Save(context.Background())
	go periodic.Every(context.Background(), spaceTime, s.watchSpace())
	go s.watchdog.Run(context.Background())
	what := <-s.shutdown
	s.end(what)
}

// listenSignals collects dead children from now on, and obeys the keyboard.
func (s *system) listenSignals() {
	children := make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	go func() {
		for range children {
			s.reaper.Reap()
		}
	}()
	// With this, Ctrl-Alt-Del is a signal instead of a reboot on the spot.
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF)
	orders := make(chan os.Signal, 1)
	signal.Notify(orders, unix.SIGINT, unix.SIGTERM, unix.SIGPWR)
	go func() {
		for order := range orders {
			switch order {
			case unix.SIGPWR:
				s.console.Say("power fails: switching off")
				s.Shutdown("poweroff")
			default:
				s.console.Say("reboot by keyboard or signal %v", order)
				s.Shutdown("reboot")
			}
		}
	}()
}

// phase is one thing to do before the units start.
type phase struct {
	name string
	do   func() error
}

// prepare does all that the units rely on and returns the folder of their control groups.
func (s *system) prepare() (cgroups string) {
	phases := []phase{
		{"mount file systems", mountAll},
		{"set kernel options", setOptions},
		{"make control groups", func() (err error) { cgroups, err = cgroup.Setup(cgroup.Mount); return err }},
		{"make folders", makeFolders},
		{"set clock", s.setClock},
		{"open journal", s.openJournal},
		{"bring up loopback", loopback.Up},
		{"find firmware of devices", useFirmware},
		{"read configuration", s.configure},
	}
	for _, p := range phases {
		end := s.report.Begin(p.name)
		if err := p.do(); err != nil {
			s.console.Say("%s: %v", p.name, err)
		}
		end()
	}
	if cgroups == "" {
		boot.Fail(s.console, "make control groups", errors.New("the kernel gives none"), "use the kernel of the release")
	}
	go s.watchDevices()
	go s.readSecureBoot()
	return cgroups
}

// guard has a crash of this process reported, and has the reporter replaced when it dies.
func (s *system) guard() {
	err := crash.Guard(func(path string, argv []string, attr *os.ProcAttr) error {
		child, err := s.reaper.Start(path, argv, attr)
		if err != nil {
			return err
		}
		go func() {
			how := reap.Describe(child.Wait())
			s.mu.Lock()
			ending := s.ending
			s.mu.Unlock()
			if ending {
				return
			}
			s.console.Say("the crash reporter has %s; starting another", how)
			time.Sleep(guardTime)
			s.guard()
		}()
		return nil
	})
	if err != nil {
		s.console.Say("%v", err)
	}
}

// openJournal begins with what a crash has left: it belongs to the boot before.
func (s *system) openJournal() error {
	if f, err := os.Open("/dev/kmsg"); err == nil {
		go func() {
			_ = journal.ReadKernel(f, func(line journal.KernelLine) {
				at := time.Now().Add(line.Since - report.Uptime()) // as the clock is now
				if own, ok := strings.CutPrefix(line.Text, console.Prefix); ok && line.Facility == 1 {
					s.journal.AppendAt(at, ownName, journal.Priorities[line.Level], own)
					return
				}
				s.journal.AppendAt(at, "kernel", journal.Priorities[line.Level], line.Text)
				if unit, words := s.refusals.Note(line.Text); unit != "" {
					s.journal.AppendAt(at, unit, journal.Priorities[line.Level], words)
				}
			})
		}()
	}
	past, forget, err := crash.Past(crash.Folder)
	for _, line := range past {
		s.journal.AppendPast(line.Time, crash.Unit, line.Text)
	}
	if err := errors.Join(err, s.journal.Attach(journalDir)); err != nil {
		return err
	}
	if len(past) == 0 {
		return nil
	}
	s.console.Say("the last boot has ended badly: see waltctl logs %s", crash.Unit)
	if err := s.journal.Flush(); err != nil {
		return err // the next boot tries again
	}
	return forget()
}

func (s *system) startUnits() {
	end := s.report.Begin("read units")
	units, err := s.loadUnits()
	end()
	if err != nil {
		s.console.Alarm("no unit is started: %v", err)
		boot.Fail(s.console, "read units", err, "boot the other slot, or write the disk image again")
	}
	s.launcher = process.New(process.Config{
		Reaper: s.reaper, CgroupRoot: s.cgroups, RunDir: runFolderOfUnits, StateDir: stateFolderOfUnits, Shim: program,
		Log: s.journal.Append,
	})
	s.manager, err = unit.New(unit.Config{
		Units: units, Launcher: s.launcher, Clock: unit.SystemClock{}, Jitter: rand.Float64, Changed: s.changed,
	})
	if err != nil {
		boot.Fail(s.console, "read units", err, "boot the other slot, or write the disk image again")
	}
	var listener *net.UnixListener
	if listener, err = control.Listen(control.Path); err != nil {
		s.console.Say("waltctl will not work: %v", err)
	} else {
		server := &control.Server{Machine: s, Planner: planner{s.manager, []string{unitFolder, ownFolder}}, Journal: s.journal, History: s.history}
		go func() { _ = server.Serve(listener) }()
	}
	s.console.Say("starting %d units", len(units))
	s.manager.StartAll()
}

// changed is told each change of a unit, in order.
func (s *system) changed(c unit.Change) {
	s.history.Add(c)
	name := c.Unit
	switch c.New {
	case unit.Starting:
		s.console.Say("%s: starting", name)
	case unit.Running, unit.Done:
		if c.Reason != "" {
			s.console.Say("%s: %s", name, c.Reason)
		} else if u, ok := s.find(name); ok && u.Type != "group" {
			s.console.Say("%s: %s after %.2f s", name, c.New, c.Took.Seconds())
		}
	case unit.Backoff:
		s.console.Say("%s: %s; it will be started again", name, c.Reason)
		s.sayLast(name)
	case unit.Failed:
		s.console.Alarm("%s: FAILED: %s", name, c.Reason)
		s.sayLast(name)
	case unit.Blocked:
		s.console.Say("%s: not started: %s", name, c.Reason)
	case unit.Killing:
		s.console.Say("%s: %s; killing all its processes", name, c.Reason)
	case unit.Stopped:
		s.console.Say("%s: stopped", name)
	case unit.Reloading:
		s.console.Say("%s: reloading", name)
	case unit.Scheduled:
		if c.Reason != "" {
			s.console.Say("%s: %s", name, c.Reason)
			s.sayLast(name)
		}
	case unit.Waiting, unit.Listening, unit.Stopping:
	}
	s.summarise()
}

func (s *system) find(name string) (unit.Snapshot, bool) {
	all := s.manager.Snapshot()
	i := slices.IndexFunc(all, func(u unit.Snapshot) bool { return u.Name == name })
	if i < 0 {
		return unit.Snapshot{}, false
	}
	return all[i], true
}

// sayLast shows the last words of a unit that has ended.
func (s *system) sayLast(name string) {
	const lines = 5
	for _, r := range s.journal.Tail(name, lines) {
		s.console.Say("%s | %s", name, r.Text)
	}
}

// patience is how many failures in a row a unit may have before the machine is called
// degraded for it.
const patience = 3

// state returns "starting", "ready" or "degraded" with the units that are the reason.
func (s *system) state(all []unit.Snapshot, first bool) (state string, bad []string) {
	if !unit.Settled(all) && first {
		return "starting", nil
	}
	for _, u := range all {
		switch {
		case !u.Wanted:
		case u.State == unit.Failed, u.State == unit.Blocked,
			u.State == unit.Backoff && (first || u.Consecutive >= patience),
			!u.Settled && u.Consecutive >= patience:
			bad = append(bad, u.Name)
		}
	}
	if len(bad) > 0 {
		return "degraded", bad
	}
	return "ready", nil
}

// summarise prints the line that people and the lab wait for, when it changes.
func (s *system) summarise() {
	all := s.manager.Snapshot()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ending {
		return
	}
	state, bad := s.state(all, !s.everSaid)
	if state == "starting" {
		return
	}
	text := "ready"
	if state == "degraded" {
		text = "degraded: units " + strings.Join(bad, ", ")
	}
	if text == s.summary {
		return
	}
	if !s.everSaid {
		s.everSaid = true
		s.ready = report.Uptime()
		memory.Trim()
	}
	s.summary = text
	if state == "degraded" {
		s.console.Alarm("%s", text)
		return
	}
	s.console.Say("%s", text)
}

package unit

import (
	"sort"
	"syscall"
	"testing"
	"time"

	"github.com/waltos/waltos/hcl"
)

// fakeClock moves only when it is told to.
type fakeClock struct {
	now    time.Time
	timers []*fakeTimer
}

type fakeTimer struct {
	at      time.Time
	f       func()
	stopped bool
}

func newClock() *fakeClock { return &fakeClock{now: time.Unix(1e9, 0)} }

func (c *fakeClock) Now() time.Time { return c.now }

func (c *fakeClock) AfterFunc(d time.Duration, f func()) Timer {
	t := &fakeTimer{at: c.now.Add(d), f: f}
	c.timers = append(c.timers, t)
	return t
}

func (t *fakeTimer) Stop() bool {
	was := !t.stopped
	t.stopped = true
	return was
}

// next fires the earliest timer and reports whether there was one.
func (c *fakeClock) next() bool {
	sort.SliceStable(c.timers, func(i, j int) bool { return c.timers[i].at.Before(c.timers[j].at) })
	for len(c.timers) > 0 {
		t := c.timers[0]
		c.timers = c.timers[1:]
		if t.stopped {
			continue
		}
		t.stopped = true
		if t.at.After(c.now) {
			c.now = t.at
		}
		t.f()
		return true
	}
	return false
}

// fakeLauncher starts nothing; the test says what becomes of its runs.
type fakeLauncher struct {
	launched  func(u *hcl.Unit, task Task) // called with the manager's lock held
	runs      map[string]*fakeRun
	released  map[string]int
	updated   map[string]int
	forgotten map[string]int
	last      time.Time // of every persistent job
}

type fakeRun struct {
	unit    *hcl.Unit
	task    Task
	report  func(Event)
	signals []syscall.Signal
	killed  bool
	probes  int
	reloads int
}

func newLauncher() *fakeLauncher {
	return &fakeLauncher{
		runs: map[string]*fakeRun{}, released: map[string]int{}, updated: map[string]int{}, forgotten: map[string]int{},
	}
}

func (l *fakeLauncher) Launch(u *hcl.Unit, task Task, report func(Event)) Run {
	r := &fakeRun{unit: u, task: task, report: report}
	if l.launched != nil {
		l.launched(u, task)
	}
	l.runs[u.Name] = r
	return r
}

func (l *fakeLauncher) Update(u *hcl.Unit)            { l.updated[u.Name]++ }
func (l *fakeLauncher) Release(u *hcl.Unit)           { l.released[u.Name]++ }
func (l *fakeLauncher) Forget(u *hcl.Unit)            { l.forgotten[u.Name]++ }
func (l *fakeLauncher) LastRun(u *hcl.Unit) time.Time { return l.last }

func (r *fakeRun) Signal(s syscall.Signal)                        { r.signals = append(r.signals, s) }
func (r *fakeRun) Kill()                                          { r.killed = true }
func (r *fakeRun) Probe(hcl.Probe, time.Duration)                 { r.probes++ }
func (r *fakeRun) Reload(syscall.Signal, []string, time.Duration) { r.reloads++ }

// exit ends the live run of a unit.
func (l *fakeLauncher) exit(name string, ok bool) {
	how := "exited with status 0"
	if !ok {
		how = "exited with status 1"
	}
	l.exitAs(name, Event{Kind: Exited, OK: ok, Text: how})
}

func (l *fakeLauncher) exitAs(name string, e Event) {
	if r := l.runs[name]; r != nil {
		delete(l.runs, name)
		r.report(e)
	}
}

// tell reports an event of the live run of a unit's commands.
func (l *fakeLauncher) tell(name string, e Event) {
	if r := l.runs[name]; r != nil && r.task == Main {
		r.report(e)
	}
}

func (l *fakeLauncher) ready(name string) {
	if r := l.runs[name]; r != nil && r.task != Undo {
		r.report(Event{Kind: Ready})
	}
}

// house is a manager with its fakes.
type house struct {
	*Manager
	clock    *fakeClock
	launcher *fakeLauncher
	changes  []Change
}

func newHouse(t interface{ Fatal(...any) }, text string) *house {
	units, err := hcl.ParseUnits([]byte(text), "test.hcl")
	if err != nil {
		t.Fatal(err)
	}
	h := &house{clock: newClock(), launcher: newLauncher()}
	h.Manager, err = New(Config{
		Units: units, Launcher: h.launcher, Clock: h.clock, Jitter: func() float64 { return 0 },
		Changed: func(c Change) { h.changes = append(h.changes, c) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *house) state(name string) State { return h.units[name].state }

func (h *house) want(t *testing.T, name string, state State) {
	t.Helper()
	if got := h.state(name); got != state {
		t.Fatalf("%s is %s (%s), want %s", name, got, h.units[name].reason, state)
	}
}

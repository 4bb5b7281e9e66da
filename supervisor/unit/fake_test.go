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
	launched func(u *hcl.Unit) // called with the manager's lock held
	runs     map[string]*fakeRun
	released map[string]int
}

type fakeRun struct {
	unit    string
	undo    bool
	report  func(Event)
	signals []syscall.Signal
	killed  bool
}

func newLauncher() *fakeLauncher {
	return &fakeLauncher{runs: map[string]*fakeRun{}, released: map[string]int{}}
}

func (l *fakeLauncher) Launch(u *hcl.Unit, undo bool, report func(Event)) Run {
	r := &fakeRun{unit: u.Name, undo: undo, report: report}
	if l.launched != nil {
		l.launched(u)
	}
	l.runs[u.Name] = r
	return r
}

func (l *fakeLauncher) Release(u *hcl.Unit) { l.released[u.Name]++ }

func (r *fakeRun) Signal(s syscall.Signal) { r.signals = append(r.signals, s) }
func (r *fakeRun) Kill()                   { r.killed = true }

// exit ends the live run of a unit.
func (l *fakeLauncher) exit(name string, ok bool) {
	r := l.runs[name]
	if r == nil {
		return
	}
	delete(l.runs, name)
	how := "exited with status 0"
	if !ok {
		how = "exited with status 1"
	}
	r.report(Event{Kind: Exited, OK: ok, Text: how})
}

func (l *fakeLauncher) ready(name string) {
	if r := l.runs[name]; r != nil && !r.undo {
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

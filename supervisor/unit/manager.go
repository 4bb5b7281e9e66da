// Package unit decides when the processes of units start, restart and stop: a state
// machine per unit (machine.go) and the graph of their dependencies.
//
// Its rules are those of hcl.Unit: needs (start after, be blocked without), wants
// (start too, wait for the first result), after (order only). A unit that is running
// is not touched when one that it needs crashes, since that one is being restarted.
// Stopping a unit stops those that need it first; stopping or restarting a group does
// so with what the group needs. Refused: graphs that hcl.CheckGraph refuses.
//
// The package starts no process itself: that is the [Launcher]'s.
package unit

import (
	"fmt"
	"slices"
	"sort"
	"sync"
	"syscall"
	"time"

	"github.com/waltos/waltos/hcl"
)

// Launcher runs the processes of units. Its methods are called with the manager's lock
// held: they return at once and never call back from the same goroutine.
type Launcher interface {
	// Launch starts one run of a unit, or of its stop command. What happens is told to
	// report; the last event, always sent, is Exited.
	Launch(u *hcl.Unit, undo bool, report func(Event)) Run
	// Release closes what was kept for the unit: it is stopped, not just restarted.
	Release(u *hcl.Unit)
}

// Run is a launched unit.
type Run interface {
	Signal(syscall.Signal) // to the main process
	Kill()                 // everything that the unit started
}

// Event is what a Run reports.
type Event struct {
	Kind EventKind
	PID  int    // Started
	OK   bool   // Exited: status 0
	Text string // Status: the text; Exited: how, in words
}

// EventKind tells what an Event means.
type EventKind int

const (
	Started EventKind = iota // the main process exists
	Ready                    // it does its work
	Status                   // it has something to say
	Exited                   // nothing of it is left
)

// Clock is the time that the manager lives in.
type Clock interface {
	Now() time.Time
	AfterFunc(time.Duration, func()) Timer
}

// Timer is a pending AfterFunc.
type Timer interface{ Stop() bool }

// Change is one change of the state of a unit.
type Change struct {
	Unit     string
	Old, New State
	Reason   string
	Wanted   bool
	Time     time.Time
	Took     time.Duration // in the old state
}

// Config is what a Manager is made of.
type Config struct {
	Units    []*hcl.Unit
	Launcher Launcher
	Clock    Clock
	Jitter   func() float64 // in [0,1)
	// Changed is told each change, in order, from any goroutine but never two at once,
	// without lock. It must not call a method that changes a unit.
	Changed func(Change)
}

// Manager holds all units. Its methods may be called from any goroutine.
type Manager struct {
	launcher Launcher
	clock    Clock
	jitter   func() float64
	changed  func(Change)

	mu      sync.Mutex
	units   map[string]*machine
	order   []string // topological: what comes first is depended upon
	changes []Change

	delivery sync.Mutex
	waiters  []*waiter
}

type waiter struct {
	condition func() bool
	done      chan struct{}
}

// New makes a manager of units that are all stopped.
func New(config Config) (*Manager, error) {
	if err := hcl.CheckGraph(config.Units); err != nil {
		return nil, err
	}
	m := &Manager{
		launcher: config.Launcher, clock: config.Clock, jitter: config.Jitter, changed: config.Changed,
		units: map[string]*machine{},
	}
	for _, u := range config.Units {
		m.units[u.Name] = &machine{m: m, unit: u, state: Stopped, since: m.clock.Now()}
	}
	seen := map[string]bool{}
	var visit func(name string)
	visit = func(name string) {
		if seen[name] {
			return
		}
		seen[name] = true
		for _, other := range m.units[name].unit.Dependencies() {
			visit(other)
		}
		m.order = append(m.order, name)
	}
	for _, name := range m.names() {
		visit(name)
	}
	return m, nil
}

func (m *Manager) names() []string {
	names := make([]string, 0, len(m.units))
	for name := range m.units {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// locked runs one event and all that follows from it, then tells the changes.
func (m *Manager) locked(event func()) {
	m.mu.Lock()
	event()
	m.settle()
	m.waiters = slices.DeleteFunc(m.waiters, func(w *waiter) bool {
		if w.condition() {
			close(w.done)
			return true
		}
		return false
	})
	m.mu.Unlock()
	m.deliver()
}

// settle lets every unit react to the states of the others until nothing moves.
func (m *Manager) settle() {
	for moved := true; moved; {
		moved = false
		for _, name := range m.order {
			moved = m.units[name].settle() || moved
		}
	}
}

func (m *Manager) deliver() {
	m.delivery.Lock()
	defer m.delivery.Unlock()
	for {
		m.mu.Lock()
		changes := m.changes
		m.changes = nil
		m.mu.Unlock()
		if len(changes) == 0 {
			return
		}
		for _, c := range changes {
			m.changed(c)
		}
	}
}

func (m *Manager) note(c Change) { m.changes = append(m.changes, c) }

// internalError notes an event that its state cannot have: a defect of this package,
// which must not take PID 1 down.
func (m *Manager) internalError(u *machine, event string) {
	m.note(Change{
		Unit: u.unit.Name, Old: u.state, New: u.state, Wanted: u.wanted, Time: m.clock.Now(),
		Reason: fmt.Sprintf("internal error: %s in state %s", event, u.state),
	})
}

// launch starts a run and binds its events to the present generation.
func (m *Manager) launch(u *machine, undo bool) Run {
	generation := u.generation
	return m.launcher.Launch(u.unit, undo, func(e Event) {
		m.locked(func() {
			if u.generation == generation {
				u.event(e)
			}
		})
	})
}

func (u *machine) event(e Event) {
	switch e.Kind {
	case Started:
		u.pid = e.PID
	case Ready:
		u.isReady()
	case Status:
		u.status = e.Text
	case Exited:
		u.exited(e.OK, e.Text)
	}
}

// activeDependents tells whether a unit that depends on u, in whatever way, and that is
// on its way down too, is still there.
func (m *Manager) activeDependents(u *machine) bool {
	for _, other := range m.units {
		if !other.wanted && other.active() && slices.Contains(other.unit.Dependencies(), u.unit.Name) {
			return true
		}
	}
	return false
}

// ErrUnknown is returned for names that no unit has.
type ErrUnknown struct{ Name string }

func (e ErrUnknown) Error() string { return fmt.Sprintf("no unit is named %q", e.Name) }

// StartAll starts every unit.
func (m *Manager) StartAll() {
	m.locked(func() {
		for _, name := range m.order {
			m.units[name].start()
		}
	})
}

// Start starts a unit and all that it needs or wants.
func (m *Manager) Start(name string) error {
	return m.each(name, (*machine).start, func(u *machine) []string {
		return slices.Concat(u.unit.Needs, u.unit.Wants)
	})
}

// Stop stops a unit and those that need it; of a group, also what the group needs.
func (m *Manager) Stop(name string) error {
	return m.each(name, (*machine).stop, func(u *machine) []string {
		names := m.members(u)
		for _, other := range m.units {
			if slices.Contains(other.unit.Needs, u.unit.Name) {
				names = append(names, other.unit.Name)
			}
		}
		return names
	})
}

// Restart restarts a unit, and starts one that is not there as Start does; of a group,
// what it needs. Units that need it go on.
func (m *Manager) Restart(name string) error {
	return m.each(name, (*machine).restart, m.members)
}

func (m *Manager) members(u *machine) []string {
	if u.unit.Type == "group" {
		return slices.Clone(u.unit.Needs)
	}
	return nil
}

// each applies an event to a unit and to what follows from it.
func (m *Manager) each(name string, event func(*machine), next func(*machine) []string) error {
	var err error
	m.locked(func() {
		if m.units[name] == nil {
			err = ErrUnknown{name}
			return
		}
		list := []string{name}
		for i := 0; i < len(list); i++ {
			for _, other := range next(m.units[list[i]]) {
				if !slices.Contains(list, other) {
					list = append(list, other)
				}
			}
		}
		for _, name := range list {
			event(m.units[name])
		}
	})
	return err
}

// StopAll stops every unit, dependents first, and returns a channel that is closed when
// none is left.
func (m *Manager) StopAll() <-chan struct{} {
	m.locked(func() {
		for _, name := range slices.Backward(m.order) {
			m.units[name].stop()
		}
	})
	return m.When(func(snapshot []Snapshot) bool {
		return !slices.ContainsFunc(snapshot, func(s Snapshot) bool { return s.Active })
	})
}

// When returns a channel that is closed as soon as the condition holds.
func (m *Manager) When(condition func([]Snapshot) bool) <-chan struct{} {
	w := &waiter{condition: func() bool { return condition(m.snapshot()) }, done: make(chan struct{})}
	m.locked(func() { m.waiters = append(m.waiters, w) })
	return w.done
}

// Settled is the condition that every wanted unit has had its first result.
func Settled(snapshot []Snapshot) bool {
	return !slices.ContainsFunc(snapshot, func(s Snapshot) bool { return s.Wanted && !s.Settled })
}

// Snapshot is what one unit looks like at a moment.
type Snapshot struct {
	Name        string
	Description string
	Type        string
	State       State
	Wanted      bool
	Settled     bool // has had a result, good or bad
	Active      bool // something of it is there
	Since       time.Time
	PID         int
	Restarts    int // since boot
	Consecutive int // failures without a long run between them
	Reason      string
	Status      string
	Began       time.Time // first start
	Ready       time.Time // first readiness
	Needs       []string  // as hcl.Unit has them
	Wants       []string
	After       []string
}

// Snapshot returns all units by name.
func (m *Manager) Snapshot() []Snapshot {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.snapshot()
}

func (m *Manager) snapshot() []Snapshot {
	list := make([]Snapshot, 0, len(m.units))
	for _, name := range m.names() {
		u := m.units[name]
		list = append(list, Snapshot{
			Name: name, Description: u.unit.Description, Type: u.unit.Type, State: u.state, Wanted: u.wanted,
			Settled: u.settled(), Active: u.active(), Since: u.since, PID: u.pid, Restarts: u.restarts,
			Consecutive: u.consecutive, Reason: u.reason, Status: u.status, Began: u.began, Ready: u.ready,
			Needs: u.unit.Needs, Wants: u.unit.Wants, After: u.unit.After,
		})
	}
	return list
}

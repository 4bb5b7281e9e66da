// Package unit decides when the processes of units start, restart and stop: a state
// machine per unit (machine.go) and the graph of their dependencies.
//
// Its rules are those of hcl.Unit: needs (start after, fail with), wants (start too, wait
// for the first result), after (order only), binds (needs, and restart with). A unit that
// is running is not touched when one that it needs crashes, since that one is being
// restarted; when that one fails for good, it is ended and blocked. Stopping a unit stops
// those that need it first; stopping or restarting a group does so with what the group
// needs. Refused: graphs that hcl.CheckGraph refuses.
//
// Units on demand wait for a connection instead of starting, periodic jobs (schedule.go)
// for their time. Definitions are exchanged while units run, by a plan (plan.go).
//
// The package starts no process itself: that is the [Launcher]'s.
package unit

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/waltos/waltos/hcl"
)

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

	booted time.Time

	mu      sync.Mutex
	units   map[string]*machine
	order   []string // topological: what comes first is depended upon
	edition int      // of the definitions; plans are made for one
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
		booted: config.Clock.Now(), units: map[string]*machine{},
	}
	for _, u := range config.Units {
		m.add(u)
	}
	m.sort()
	return m, nil
}

func (m *Manager) add(u *hcl.Unit) *machine {
	one := &machine{m: m, unit: u, live: u, state: Stopped, since: m.clock.Now()}
	if u.Timer != nil && u.Timer.Persistent {
		one.launched = m.launcher.LastRun(u)
	}
	m.units[u.Name] = one
	return one
}

// sort puts the units in an order in which each comes after those that it depends on.
func (m *Manager) sort() {
	definitions := map[string]*hcl.Unit{}
	for name, u := range m.units {
		definitions[name] = u.unit
	}
	m.order = sorted(definitions)
}

func (m *Manager) names() []string { return slices.Sorted(maps.Keys(m.units)) }

// locked runs one event and all that follows from it, then tells the changes.
func (m *Manager) locked(event func()) {
	m.mu.Lock()
	event()
	m.settle()
	m.forget()
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

// maxRounds bounds settle: in each round but the last some unit moves, and a unit moves a few
// times at most.
const maxRounds = 16

// settle lets every unit react to the states of the others until nothing moves.
func (m *Manager) settle() {
	for range maxRounds * (len(m.order) + 1) {
		moved := false
		for _, name := range m.order {
			moved = m.units[name].settle() || moved
		}
		if !moved {
			return
		}
	}
	for _, name := range m.order {
		if u := m.units[name]; u.settle() {
			m.internalError(u, "settle without end")
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

// held tells whether something that depends on a unit must end before it: what goes too,
// in whatever way it depends, and what is bound to it.
func (m *Manager) held(u *machine) bool {
	for _, other := range m.units {
		if !other.active() {
			continue
		}
		if !u.wanted && !other.wanted && slices.Contains(other.unit.Dependencies(), u.unit.Name) {
			return true
		}
		if !other.listens() && slices.Contains(other.unit.Binds, u.unit.Name) {
			return true
		}
	}
	return false
}

// ErrUnknown is returned for names that no unit has.
type ErrUnknown struct{ Name string }

func (e ErrUnknown) Error() string { return fmt.Sprintf("no unit is named %q", e.Name) }

// StartAll starts every unit; those on demand and periodic jobs begin to wait.
func (m *Manager) StartAll() {
	m.locked(func() {
		for _, name := range m.order {
			if u := m.units[name]; !u.removed {
				u.start(false)
			}
		}
	})
}

// Start starts a unit now, and all that it needs or wants.
func (m *Manager) Start(name string) error {
	return m.change(name, func(u *machine) {
		for _, other := range m.closure([]string{name}, func(u *machine) []string { return u.unit.Pulled() }) {
			m.units[other].start(other == name)
		}
	})
}

// Stop stops a unit and those that need it; of a group, also what the group needs.
func (m *Manager) Stop(name string) error {
	return m.change(name, func(*machine) {
		for _, other := range m.closure(m.members(name), func(u *machine) []string {
			var names []string
			for _, other := range m.units {
				if slices.Contains(other.unit.Required(), u.unit.Name) {
					names = append(names, other.unit.Name)
				}
			}
			return names
		}) {
			m.units[other].stop()
		}
	})
}

// Restart restarts a unit, and starts one that is not there as Start does; of a group,
// what it needs. Units that are bound to it are restarted too; those that need it go on.
func (m *Manager) Restart(name string) error {
	return m.change(name, func(*machine) {
		for _, other := range m.members(name) {
			m.units[other].restart("restarted by request")
		}
	})
}

// Reload makes a running service read its configuration again.
func (m *Manager) Reload(name string) error {
	var refused error
	err := m.change(name, func(u *machine) {
		switch {
		case u.live.Reload == nil:
			refused = fmt.Errorf("cannot reload %s: its definition has no reload block; restart it", name)
		case u.state != Running:
			refused = fmt.Errorf("cannot reload %s: it is %s", name, u.state)
		default:
			u.reload()
		}
	})
	return errors.Join(err, refused)
}

// members returns a unit and, if it is a group, all that it needs, through groups within it.
func (m *Manager) members(name string) []string {
	return m.closure([]string{name}, func(u *machine) []string {
		if u.unit.Type == "group" {
			return u.unit.Required()
		}
		return nil
	})
}

// closure adds to a list what follows from its units.
func (m *Manager) closure(list []string, next func(*machine) []string) []string {
	for i := 0; i < len(list); i++ {
		for _, other := range next(m.units[list[i]]) {
			if !slices.Contains(list, other) {
				list = append(list, other)
			}
		}
	}
	return list
}

// change applies an event to a unit.
func (m *Manager) change(name string, event func(*machine)) error {
	var err error
	m.locked(func() {
		u := m.units[name]
		switch {
		case u == nil:
			err = ErrUnknown{name}
		case u.removed:
			err = fmt.Errorf("cannot change %s: no file defines it any more, and it is being stopped", name)
		default:
			event(u)
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
	Settled     bool // has had a result, good or bad, and stays with it
	Active      bool // something of it is there
	Since       time.Time
	PID         int
	Restarts    int // since boot
	Consecutive int // failures without a long run between them
	Reason      string
	Status      string
	Next        time.Time // scheduled: the next run
	Began       time.Time // first start
	Ready       time.Time // first readiness
	Needs       []string  // as hcl.Unit has them
	Wants       []string
	After       []string
	Binds       []string
	Definition  *hcl.Unit // not to be changed
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
		var due time.Time
		if u.state == Scheduled {
			due = u.due
		}
		list = append(list, Snapshot{
			Name: name, Next: due, Description: u.unit.Description, Type: u.unit.Type, State: u.state, Wanted: u.wanted,
			Settled: u.settled() && u.leaving == "", Active: u.active(), Since: u.since, PID: u.pid, Restarts: u.restarts,
			Consecutive: u.consecutive, Reason: u.reason, Status: u.status, Began: u.began, Ready: u.ready,
			Needs: u.unit.Needs, Wants: u.unit.Wants, After: u.unit.After, Binds: u.unit.Binds, Definition: u.unit,
		})
	}
	return list
}

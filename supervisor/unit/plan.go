package unit

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/waltos/waltos/hcl"
)

// Action is what a plan does with a unit.
type Action string

const (
	Keep    Action = "keep"    // nothing
	Adjust  Action = "change"  // takes the new definition without being touched
	Renew   Action = "restart" // takes the new definition by a restart
	Add     Action = "add"     // starts
	Discard Action = "remove"  // stops and is gone
)

// Step is what a plan does with one unit.
type Step struct {
	Unit    string           `json:"unit"`
	Action  Action           `json:"action"`
	Because string           `json:"because,omitempty"` // if it is not for its own changes
	Changes []hcl.Difference `json:"changes,omitempty"`
}

// Plan is the way from the definitions that hold to others. It holds for the manager that
// has made it, until another plan is applied.
type Plan struct {
	Steps []Step // of all units, in the order in which they start; removed ones first

	units   map[string]*hcl.Unit
	edition int
}

// ID stands for the plan: one that does the same from the same state has the same.
func (p *Plan) ID() string {
	text, err := json.Marshal(p.Steps)
	if err != nil {
		panic("internal error: a plan cannot be written: " + err.Error())
	}
	sum := sha256.Sum256(fmt.Appendf(text, "%d", p.edition))
	return hex.EncodeToString(sum[:8])
}

// Empty tells whether the plan changes nothing.
func (p *Plan) Empty() bool {
	return !slices.ContainsFunc(p.Steps, func(s Step) bool { return s.Action != Keep })
}

// Plan compares definitions with those that hold. It changes nothing.
func (m *Manager) Plan(units []*hcl.Unit) (*Plan, error) {
	if err := hcl.CheckGraph(units); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	p := &Plan{units: map[string]*hcl.Unit{}, edition: m.edition}
	for _, u := range units {
		p.units[u.Name] = u
	}
	for _, name := range m.names() {
		if p.units[name] == nil && !m.units[name].removed {
			p.Steps = append(p.Steps, Step{Unit: name, Action: Discard})
		}
	}
	restarted := map[string]bool{}
	for _, name := range sorted(p.units) {
		s := m.step(p.units[name], restarted)
		restarted[name] = s.Action == Renew
		p.Steps = append(p.Steps, s)
	}
	return p, nil
}

// step plans one unit; of those that it depends on it is known whether they are restarted.
func (m *Manager) step(def *hcl.Unit, restarted map[string]bool) Step {
	s := Step{Unit: def.Name, Action: Keep}
	u := m.units[def.Name]
	if u == nil || u.removed {
		s.Action = Add
		return s
	}
	if s.Changes = hcl.Differences(u.unit, def); len(s.Changes) > 0 {
		s.Action = Adjust
	}
	if !u.wanted || !u.active() {
		return s
	}
	if needsRestart(s.Changes) {
		s.Action = Renew
		return s
	}
	for _, name := range def.Binds {
		if restarted[name] {
			s.Action, s.Because = Renew, "it is bound to "+name
			return s
		}
	}
	return s
}

func needsRestart(changes []hcl.Difference) bool {
	return slices.ContainsFunc(changes, func(d hcl.Difference) bool { return !d.Live })
}

// sorted returns the names of units in an order in which each comes after those that it
// depends on.
func sorted(units map[string]*hcl.Unit) []string {
	var order []string
	seen := map[string]bool{}
	var visit func(name string)
	visit = func(name string) {
		if seen[name] || units[name] == nil {
			return
		}
		seen[name] = true
		for _, other := range units[name].Dependencies() {
			visit(other)
		}
		order = append(order, name)
	}
	for _, name := range slices.Sorted(maps.Keys(units)) {
		visit(name)
	}
	return order
}

// ErrOutdated is returned for a plan that another one has overtaken.
var ErrOutdated = errors.New("the units have changed since the plan was made; plan again")

// Apply does what a plan says: units that are gone are stopped and forgotten, those whose
// change needs it are restarted if they are there, new ones are started, and so is what
// is needed or wanted newly.
func (m *Manager) Apply(p *Plan) error {
	var err error
	m.locked(func() {
		if p.edition != m.edition {
			err = fmt.Errorf("cannot apply the plan: %w", ErrOutdated)
			return
		}
		m.edition++
		var pulled []string // what must be started, if it is not
		for _, name := range m.names() {
			if u := m.units[name]; p.units[name] == nil {
				u.removed = true
				u.stop()
			}
		}
		for _, name := range sorted(p.units) {
			def, u := p.units[name], m.units[name]
			switch {
			case u == nil:
				m.add(def)
				pulled = append(pulled, name)
			case u.removed:
				u.removed = false
				u.redefine(def, true)
				pulled = append(pulled, name)
			default:
				if u.wanted {
					pulled = append(pulled, missing(def.Pulled(), u.unit.Pulled())...)
				}
				if changes := hcl.Differences(u.unit, def); len(changes) > 0 {
					u.redefine(def, needsRestart(changes))
				}
			}
		}
		m.sort()
		for _, name := range pulled {
			if u := m.units[name]; !u.wanted {
				u.startTree(false)
			}
		}
	})
	return err
}

// missing returns what of the first list is not in the second.
func missing(list, from []string) []string {
	return slices.DeleteFunc(list, func(name string) bool { return slices.Contains(from, name) })
}

// forget drops the units that no file defines any more, once they are stopped.
func (m *Manager) forget() {
	for name, u := range m.units {
		if u.removed && u.state == Stopped {
			m.launcher.Forget(u.unit)
			delete(m.units, name)
			m.order = slices.DeleteFunc(m.order, func(other string) bool { return other == name })
		}
	}
}

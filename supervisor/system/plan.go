package system

import (
	"fmt"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/supervisor/control"
	"github.com/waltos/waltos/supervisor/sandbox"
	"github.com/waltos/waltos/supervisor/unit"
)

// Folders of unit files: of the image, and of the administrator.
const (
	unitFolder = "/usr/lib/walt/units"
	ownFolder  = "/etc/walt/units.d"
)

// loadUnits reads the units at boot. Those of the image alone are better than none.
func (s *system) loadUnits() ([]*hcl.Unit, error) {
	units, err := hcl.LoadUnits(unitFolder, ownFolder)
	if err == nil {
		return units, nil
	}
	s.console.Alarm("the units of %s are left out: %v", ownFolder, err)
	return hcl.LoadUnits(unitFolder)
}

// planner implements control.Planner.
type planner struct {
	manager *unit.Manager
	folders []string
}

// Plan implements control.Planner.
func (s planner) Plan() (control.Plan, error) {
	p, err := s.plan()
	if err != nil {
		return control.Plan{}, err
	}
	return control.Plan{ID: p.ID(), Steps: p.Steps}, nil
}

func (s planner) plan() (*unit.Plan, error) {
	units, err := hcl.LoadUnits(s.folders...)
	if err != nil {
		return nil, err
	}
	for _, u := range units {
		if err := sandbox.Check(u); err != nil {
			return nil, fmt.Errorf("%s: unit %q: %w", u.Range, u.Name, err)
		}
	}
	return s.manager.Plan(units)
}

// ApplyPlan implements control.Planner.
func (s planner) ApplyPlan(id string) (control.Plan, <-chan struct{}, error) {
	p, err := s.plan()
	if err != nil {
		return control.Plan{}, nil, err
	}
	if p.ID() != id {
		return control.Plan{}, nil, fmt.Errorf("cannot apply plan %s: the unit files or the units have changed since; plan again", id)
	}
	if err := s.manager.Apply(p); err != nil {
		return control.Plan{}, nil, err
	}
	touched := map[string]unit.Action{}
	for _, step := range p.Steps {
		touched[step.Unit] = step.Action
	}
	return control.Plan{ID: id, Steps: p.Steps}, s.manager.When(func(all []unit.Snapshot) bool {
		for _, u := range all {
			switch touched[u.Name] {
			case unit.Discard:
				return false // it is still there
			case unit.Add, unit.Renew:
				if u.Wanted && !u.Settled {
					return false
				}
			}
		}
		return true
	}), nil
}

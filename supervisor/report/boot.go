package report

import (
	"cmp"
	"slices"
	"time"
)

// Boot is the report of one boot; times are since the kernel started.
type Boot struct {
	// Firmware is how long firmware and boot loader took before the kernel, if the
	// firmware says it.
	Firmware time.Duration `json:"firmware,omitempty"`
	Phases   []Phase       `json:"phases"`
	Units    []UnitBoot    `json:"units"`
	Ready    time.Duration `json:"ready,omitempty"` // all units had a result
	// Critical are the units that the last ready one had to wait for, one after the other:
	// to boot faster, shorten one of these.
	Critical []string `json:"critical,omitempty"`
}

// UnitBoot is the first start of a unit.
type UnitBoot struct {
	Name  string        `json:"name"`
	Began time.Duration `json:"began"`
	Ready time.Duration `json:"ready,omitempty"` // 0: not yet
	After []string      `json:"after,omitempty"`
}

// Kernel is the time before the first phase.
func (b Boot) Kernel() time.Duration {
	if len(b.Phases) == 0 {
		return 0
	}
	return b.Phases[0].Begin
}

// CriticalPath finds the chain of units that ends with the one that was ready last: before
// each stands the one of its dependencies that was ready last. Units that were ready after
// the boot was over do not count.
func (b Boot) CriticalPath() []string {
	byName := map[string]UnitBoot{}
	for _, u := range b.Units {
		if u.Ready > 0 && (b.Ready == 0 || u.Ready <= b.Ready) {
			byName[u.Name] = u
		}
	}
	last := func(names []string) (found UnitBoot) {
		for _, name := range names {
			// Of two at the same moment the one that began later is nearer to the end.
			if u, ok := byName[name]; ok && cmp.Or(cmp.Compare(u.Ready, found.Ready), cmp.Compare(u.Began, found.Began)) > 0 {
				found = u
			}
		}
		return found
	}
	names := make([]string, 0, len(byName))
	for name := range byName {
		names = append(names, name)
	}
	slices.Sort(names)
	var path []string
	for u := last(names); u.Name != ""; u = last(u.After) {
		path = append(path, u.Name)
		delete(byName, u.Name) // a graph without cycles is not taken on trust
	}
	slices.Reverse(path)
	return path
}

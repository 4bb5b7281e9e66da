package unit

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

const before = `
unit "base" {
  exec = ["/base"]
  ready { notify = true }
  limits { memory = "1M" }
}
unit "changed" {
  exec  = ["/changed"]
  needs = ["base"]
  ready { notify = true }
  shutdown { signal = "INT" }
}
unit "bound" {
  exec  = ["/bound"]
  binds = ["changed"]
  ready { notify = true }
}
unit "gone" {
  exec  = ["/gone"]
  needs = ["base"]
  ready { notify = true }
}
unit "off" {
  exec = ["/off"]
  ready { notify = true }
}
`

const after = `
unit "base" {
  exec = ["/base"]
  ready { notify = true }
  limits { memory = "2M" }
}
unit "changed" {
  exec  = ["/changed", "-v"]
  needs = ["base"]
  wants = ["new"]
  ready { notify = true }
}
unit "bound" {
  exec  = ["/bound"]
  binds = ["changed"]
  ready { notify = true }
}
unit "new" {
  exec = ["/new"]
  ready { notify = true }
}
unit "off" {
  exec = ["/off", "-v"]
  ready { notify = true }
}
`

func describe(p *Plan) string {
	var text []string
	for _, s := range p.Steps {
		line := fmt.Sprintf("%s %s", s.Action, s.Unit)
		for _, c := range s.Changes {
			line += " " + c.Path
		}
		if s.Because != "" {
			line += ": " + s.Because
		}
		text = append(text, line)
	}
	return strings.Join(text, "\n")
}

func TestPlan(t *testing.T) {
	h := newHouse(t, before)
	h.StartAll()
	for _, name := range []string{"base", "changed", "bound", "gone", "off"} {
		h.launcher.ready(name)
	}
	h.Stop("off")
	h.launcher.exit("off", true)
	same, err := h.Plan(parseUnits(t, before))
	if err != nil || !same.Empty() {
		t.Fatalf("the plan to nothing new: %v, %v", same, err)
	}
	p, err := h.Plan(parseUnits(t, after))
	if err != nil {
		t.Fatal(err)
	}
	want := `remove gone
change base limits.memory
add new
restart changed exec wants shutdown
restart bound: it is bound to changed
change off exec`
	if got := describe(p); got != want {
		t.Fatalf("plan:\n%s\nwant:\n%s", got, want)
	}
	if h.units["changed"].unit.Exec[0] == "-v" || h.state("gone") != Running {
		t.Error("a plan has changed something")
	}
	if err := h.Apply(p); err != nil {
		t.Fatal(err)
	}
	if err := h.Apply(same); !errors.Is(err, ErrOutdated) {
		t.Errorf("an outdated plan: %v", err)
	}
	h.want(t, "base", Running)
	if h.launcher.updated["base"] != 1 || h.units["base"].unit.Limits.Memory != "2M" {
		t.Error("the limit was not changed live")
	}
	h.want(t, "gone", Stopping)
	h.want(t, "new", Starting)
	h.want(t, "off", Stopped)
	h.want(t, "changed", Running)
	h.want(t, "bound", Stopping)
	if err := h.Start("gone"); err == nil {
		t.Error("a unit that is being removed was started")
	}
	h.launcher.exit("bound", true)
	h.want(t, "changed", Stopping)
	// The old run is ended as its own definition says.
	if got := fmt.Sprint(h.launcher.runs["changed"].signals); got != "[interrupt]" {
		t.Errorf("signals %s", got)
	}
	h.launcher.exit("changed", true)
	h.want(t, "changed", Waiting) // for its new want
	h.launcher.ready("new")
	h.want(t, "changed", Starting)
	if got := len(h.launcher.runs["changed"].unit.Exec); got != 2 {
		t.Errorf("it was launched with the old definition")
	}
	h.launcher.ready("changed")
	h.launcher.ready("bound")
	h.want(t, "bound", Running)
	h.launcher.exit("gone", true)
	if h.units["gone"] != nil || h.launcher.forgotten["gone"] != 1 || len(h.Snapshot()) != 5 {
		t.Error("the removed unit is still there")
	}
	h.Start("off")
	if got := len(h.launcher.runs["off"].unit.Exec); got != 2 {
		t.Errorf("the stopped unit starts with the old definition")
	}
}

// TestPlanChangesKinds: a unit that becomes a periodic job, or on demand, or stops being so.
func TestPlanChangesKinds(t *testing.T) {
	kinds := map[State]string{
		Done:      `unit "u" {` + "\n type = \"oneshot\"\n exec = [\"/u\"]\n}",
		Scheduled: `unit "u" {` + "\n type = \"oneshot\"\n exec = [\"/u\"]\n timer { every = \"1h\" }\n}",
		Listening: `unit "u" {` + "\n exec = [\"/u\"]\n on_demand = true\n socket \"s\" { listen = \"unix:/s\" }\n}",
		Running:   `unit "u" {` + "\n exec = [\"/u\"]\n socket \"s\" { listen = \"unix:/s\" }\n}",
	}
	arrive := func(h *house, state State) {
		for range 3 {
			switch state {
			case Done:
				h.launcher.exit("u", true)
			case Running, Listening:
				h.launcher.ready("u")
			}
		}
	}
	for from, old := range kinds {
		for to, text := range kinds {
			h := newHouse(t, old)
			h.StartAll()
			arrive(h, from)
			h.want(t, "u", from)
			p, err := h.Plan(parseUnits(t, text))
			if err != nil {
				t.Fatal(err)
			}
			if err := h.Apply(p); err != nil {
				t.Fatal(err)
			}
			if h.state("u") == Stopping {
				h.launcher.exit("u", true)
			}
			arrive(h, to)
			if from == Running && to == Listening {
				to = Running // it goes on until it ends
			}
			h.want(t, "u", to)
		}
	}
}

// TestPlanComesBack: a unit that is put back before it has stopped starts again.
func TestPlanComesBack(t *testing.T) {
	h := newHouse(t, before)
	h.StartAll()
	for _, name := range []string{"base", "changed", "bound", "gone", "off"} {
		h.launcher.ready(name)
	}
	for _, text := range []string{after, before} {
		p, err := h.Plan(parseUnits(t, text))
		if err != nil {
			t.Fatal(err)
		}
		if err := h.Apply(p); err != nil {
			t.Fatal(err)
		}
	}
	h.want(t, "gone", Stopping)
	h.launcher.exit("gone", true)
	h.want(t, "gone", Starting)
}

func TestPlanRefusesBadGraphs(t *testing.T) {
	h := newHouse(t, before)
	if _, err := h.Plan(parseUnits(t, `unit "a" {
		exec = ["/a"]
		needs = ["b"]
	}`)); err == nil || !strings.Contains(err.Error(), "test.hcl:3") {
		t.Errorf("got %v", err)
	}
}

// TestFailedUnitsAreTriedAfterAChange: new definitions may be the cure.
func TestFailedUnitsAreTriedAfterAChange(t *testing.T) {
	h := newHouse(t, `unit "u" {
		exec = ["/u"]
		restart { policy = "never" }
	}`)
	h.StartAll()
	h.launcher.exit("u", false)
	h.want(t, "u", Failed)
	p, err := h.Plan(parseUnits(t, `unit "u" { exec = ["/u", "-cured"] }`))
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Apply(p); err != nil {
		t.Fatal(err)
	}
	h.want(t, "u", Starting)
}

package workflow

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// kinds of steps of a plan.
const (
	goesOn = iota
	inserts
	parallels
	interrupts
	fails
	panics
	forgets
)

// plan is a step to draw, with those that it inserts or runs in parallel.
type plan struct {
	name string
	kind int
	sub  []plan
}

var errPlanned = errors.New("planned failure")

// drawPlans draws the steps of a workflow. Steps inside of others may insert no more.
func drawPlans(t *rapid.T, prefix string, most, deepest int) []plan {
	plans := make([]plan, rapid.IntRange(0, most).Draw(t, prefix+" steps"))
	for i := range plans {
		p := plan{name: fmt.Sprint(prefix, ".", i), kind: goesOn}
		if deepest > 0 {
			p.kind = rapid.SampledFrom([]int{goesOn, goesOn, goesOn, inserts, parallels, interrupts, fails, panics, forgets}).Draw(t, p.name)
		}
		if p.kind == inserts || p.kind == parallels {
			p.sub = drawPlans(t, p.name, 3, deepest-1)
		}
		plans[i] = p
	}
	return plans
}

func (p plan) step() Step[*trace] {
	if p.kind == parallels {
		// Steps in parallel run in any order; they only tell that they have run.
		return Parallel(p.name, steps(p.sub)...)
	}
	return Step[*trace]{p.name, func(_ context.Context, f *Flow[*trace]) (Outcome, error) {
		f.Env.add(p.name)
		switch p.kind {
		case inserts:
			f.Insert(steps(p.sub)...)
		case interrupts:
			return Interrupt, nil
		case fails:
			return Next, errPlanned
		case panics:
			panic("planned")
		case forgets:
			return 0, nil
		}
		return Next, nil
	}}
}

func steps(plans []plan) []Step[*trace] {
	list := make([]Step[*trace], len(plans))
	for i, p := range plans {
		list[i] = p.step()
	}
	return list
}

// expected tells which steps run before the end, and why the workflow ends: "" if all do.
// It is the same as running, written as the recursion that insertion means.
func expected(plans []plan) (names []string, end string) {
	for _, p := range plans {
		if p.kind != parallels {
			names = append(names, p.name)
		}
		switch p.kind {
		case inserts:
			inner, end := expected(p.sub)
			if names = append(names, inner...); end != "" {
				return names, end
			}
		case parallels:
			var ends []string
			var inserted []plan
			for _, sub := range p.sub {
				switch sub.kind {
				case parallels: // what it runs is run at once too
					inner, end := expected([]plan{sub})
					names, ends = append(names, inner...), append(ends, end)
				case inserts:
					names = append(names, sub.name)
					inserted = append(sub.sub, inserted...) // the latest goes first; order is not checked
				default:
					inner, end := expected([]plan{sub})
					names, ends = append(names, inner...), append(ends, end)
				}
			}
			if i := slices.IndexFunc(ends, func(e string) bool { return e != "" && e != "interrupted" }); i >= 0 {
				return names, ends[i]
			}
			if slices.Contains(ends, "interrupted") {
				return names, "interrupted"
			}
			inner, end := expected(inserted)
			if names = append(names, inner...); end != "" {
				return names, end
			}
		case interrupts:
			return names, "interrupted"
		case fails:
			return names, fmt.Sprintf("step %q: planned failure", p.name)
		case panics:
			return names, fmt.Sprintf("step %q panicked: planned", p.name)
		case forgets:
			return names, fmt.Sprintf("step %q ended without saying how", p.name)
		}
	}
	return names, ""
}

// TestWorkflowsEndAsPlanned: whatever steps insert, run at once, forget or break, exactly
// those run that should, and the end is told with the name of the step.
func TestWorkflowsEndAsPlanned(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		plans := drawPlans(t, "s", 6, 2)
		names, end := expected(plans)
		tr := &trace{}
		err := Run(context.Background(), "test", tr, steps(plans)...)
		slices.Sort(names)
		slices.Sort(tr.lines)
		if !slices.Equal(tr.lines, names) {
			t.Fatalf("ran %q, want %q", tr.lines, names)
		}
		switch {
		case end == "" || end == "interrupted":
			if err != nil {
				t.Fatalf("error %v, want none", err)
			}
		case err == nil || !strings.Contains(err.Error(), end) || !strings.HasPrefix(err.Error(), "cannot go on with test: step "):
			t.Fatalf("error %v, want %s", err, end)
		}
	})
}

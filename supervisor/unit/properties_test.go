package unit

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/waltos/waltos/hcl"
	"pgregory.net/rapid"
)

// drawUnits writes a random graph: units u0 to u(count-1), each depending on earlier ones.
func drawUnits(t *rapid.T, count int) string {
	var text strings.Builder
	for i := range count {
		fmt.Fprintf(&text, "unit \"u%d\" {\n", i)
		kind := rapid.SampledFrom([]string{"service", "service", "on demand", "oneshot", "job", "group"}).Draw(t, "kind")
		write := func(lines ...string) { text.WriteString(strings.Join(lines, "\n") + "\n") }
		switch kind {
		case "group":
			write(`type = "group"`)
		case "oneshot":
			write(`type = "oneshot"`, `exec = ["/x"]`)
			if rapid.Bool().Draw(t, "undo") {
				write(`stop = ["/y"]`)
			}
		case "job":
			write(`type = "oneshot"`, `exec = ["/x"]`, "timer {")
			write(rapid.SampledFrom([]string{`every = "1m"`, `daily = "03:30"`}).Draw(t, "timer"), "}")
		case "on demand":
			write(fmt.Sprintf("on_demand = true\nsocket \"s\" { listen = \"unix:/s%d\" }", i))
			fallthrough
		case "service":
			write(`exec = ["/x"]`, `ready { notify = true }`, `reload { signal = "HUP" }`)
			write(rapid.SampledFrom([]string{"", "alive { notify = true }", `alive { tcp = "127.0.0.1:1" }`}).Draw(t, "alive"))
			fmt.Fprintf(&text, "restart {\n policy = %q\n give_up = \"3 in 1m\"\n}\n",
				rapid.SampledFrom([]string{"always", "on-failure", "never"}).Draw(t, "policy"))
			if rapid.Bool().Draw(t, "outlived") {
				write(`stop = ["/y"]`, `shutdown { kill = "main" }`)
			}
		}
		deps := map[string][]string{}
		for j := range i {
			if k := rapid.SampledFrom([]string{"", "", "needs", "wants", "after", "binds"}).Draw(t, "edge"); k != "" {
				deps[k] = append(deps[k], fmt.Sprintf("%q", fmt.Sprintf("u%d", j)))
			}
		}
		for _, k := range []string{"needs", "wants", "after", "binds"} {
			if deps[k] != nil {
				write(fmt.Sprintf("%s = [%s]", k, strings.Join(deps[k], ", ")))
			}
		}
		write("}")
	}
	return text.String()
}

func parseUnits(t interface{ Fatal(...any) }, text string) []*hcl.Unit {
	units, err := hcl.ParseUnits([]byte(text), "test.hcl")
	if err != nil {
		t.Fatal(err, text)
	}
	return units
}

// judge checks what must hold at any time.
type judge struct {
	*house
	t        *rapid.T
	stopping bool
}

// launched is asked before each launch.
func (j *judge) launched(u *hcl.Unit, task Task) {
	m := j.units[u.Name]
	if j.launcher.runs[u.Name] != nil {
		j.t.Fatalf("%s was launched although it is there", u.Name)
	}
	if task == Undo {
		return
	}
	if j.stopping {
		j.t.Fatalf("%s was launched during the stop of all", u.Name)
	}
	if !m.wanted {
		j.t.Fatalf("%s was launched although nobody wants it", u.Name)
	}
	if task == Listen {
		return // as early as can be
	}
	for _, name := range u.Required() {
		if other := j.units[name]; !other.isUp() {
			j.t.Fatalf("%s was launched although %s is %s", u.Name, name, other.state)
		}
	}
	if (u.OnDemand || u.Timer != nil) && !m.called {
		j.t.Fatalf("%s was launched before its time", u.Name)
	}
}

func (j *judge) check() {
	t := j.t
	for _, c := range j.changes {
		if strings.Contains(c.Reason, "internal error") {
			t.Fatalf("%s: %s", c.Unit, c.Reason)
		}
		// One whose stop a plan has begun before goes on with it.
		if j.stopping && c.New == Stopping && c.Old != Stopping && c.Old != Killing {
			for _, other := range j.units {
				if slices.Contains(other.unit.Dependencies(), c.Unit) && other.active() && other.state != Done {
					t.Fatalf("%s is stopped before %s, which is %s", c.Unit, other.unit.Name, other.state)
				}
			}
		}
		if (c.New == Failed || c.New == Blocked || c.New == Backoff || c.New == Killing) && c.Reason == "" {
			t.Fatalf("%s is %s for no reason", c.Unit, c.New)
		}
		if c.Old == Failed && !slices.Contains([]State{Waiting, Stopped, Killing}, c.New) {
			t.Fatalf("%s has failed, and is %s", c.Unit, c.New)
		}
	}
	j.changes = nil
	for name, u := range j.units {
		if (u.run != nil) != (j.launcher.runs[name] != nil) {
			t.Fatalf("%s is %s; run known: %v, there: %v", name, u.state, u.run != nil, j.launcher.runs[name] != nil)
		}
		switch u.state {
		case Scheduled, Starting, Reloading, Backoff, Stopping, Killing:
			if u.limit.timer == nil {
				t.Fatalf("%s is %s without a timer", name, u.state)
			}
		default:
			if u.limit.timer != nil {
				t.Fatalf("%s is %s and has a timer", name, u.state)
			}
		}
		if (u.pulse.timer != nil) != (u.state == Running && u.live.Alive != nil) {
			t.Fatalf("%s is %s; pulse: %v", name, u.state, u.pulse.timer != nil)
		}
		if (u.state == Running || u.state == Starting) && u.task == Main {
			j.checkBase(u)
		}
	}
	for _, timer := range j.clock.timers {
		if d := timer.at.Sub(j.clock.now); !timer.stopped && d > longestNap {
			t.Fatalf("a timer of %v", d)
		}
	}
}

// checkBase: a unit that runs stands on what it needs, or is about to go.
func (j *judge) checkBase(u *machine) {
	if u.leaving != "" {
		return
	}
	for _, name := range u.unit.Binds {
		if other := j.units[name]; !other.isUp() {
			j.t.Fatalf("%s is %s although it is bound to %s, which is %s", u.unit.Name, u.state, name, other.state)
		}
	}
	for _, name := range u.unit.Needs {
		if other := j.units[name]; other.state == Failed || other.state == Blocked {
			j.t.Fatalf("%s is %s although it needs %s, which is %s", u.unit.Name, u.state, name, other.state)
		}
	}
}

// TestRandomGraphs drives random graphs by random events, re-plans among them, and checks what
// must hold at any time; then everything is stopped, and must be, within bounded time.
func TestRandomGraphs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		count := rapid.IntRange(1, 6).Draw(t, "units")
		j := &judge{house: newHouse(t, drawUnits(t, count)), t: t}
		j.launcher.launched = j.launched
		name := rapid.Custom(func(t *rapid.T) string { return fmt.Sprintf("u%d", rapid.IntRange(0, 5).Draw(t, "unit")) })
		tell := func(kind EventKind) func(*rapid.T) {
			return func(t *rapid.T) {
				j.launcher.tell(name.Draw(t, "name"), Event{Kind: kind, OK: rapid.Bool().Draw(t, "ok"), Text: "told", Time: time.Minute})
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"start":    func(t *rapid.T) { j.Start(name.Draw(t, "name")) },
			"stop":     func(t *rapid.T) { j.Stop(name.Draw(t, "name")) },
			"restart":  func(t *rapid.T) { j.Restart(name.Draw(t, "name")) },
			"reload":   func(t *rapid.T) { j.Reload(name.Draw(t, "name")) },
			"ready":    tell(Ready),
			"reloads":  tell(Reloads),
			"reloaded": tell(Reloaded),
			"stops":    tell(Stops),
			"extends":  tell(Extends),
			"lives":    tell(Lives),
			"hangs":    tell(Hangs),
			"probed":   tell(Probed),
			"exit":     func(t *rapid.T) { j.launcher.exit(name.Draw(t, "name"), rapid.Bool().Draw(t, "ok")) },
			"skip": func(t *rapid.T) {
				j.launcher.exitAs(name.Draw(t, "name"), Event{Kind: Exited, OK: true, Skipped: true, Text: "skipped"})
			},
			"time": func(t *rapid.T) { j.clock.next() },
			"all":  func(t *rapid.T) { j.StartAll() },
			"plan": func(t *rapid.T) {
				p, err := j.Plan(parseUnits(t, drawUnits(t, rapid.IntRange(1, 6).Draw(t, "planned"))))
				if err != nil {
					t.Fatal(err)
				}
				if err := j.Apply(p); err != nil {
					t.Fatal(err)
				}
			},
			"": func(*rapid.T) { j.check() },
		})
		j.stopping = true
		done := j.StopAll()
		for range 4 * 12 {
			j.check()
			for _, name := range j.names() {
				j.launcher.exit(name, true)
			}
		}
		for name, u := range j.units {
			if u.active() || u.state != Stopped {
				t.Fatalf("%s is %s after the stop of all", name, u.state)
			}
		}
		select {
		case <-done:
		default:
			t.Fatal("StopAll does not know that all has stopped")
		}
		if j.clock.next() {
			t.Fatal("a timer is left")
		}
	})
}

// TestDeafUnitsEndInBoundedTime: without any help of the processes, the stop of all is over
// when the timers are.
func TestDeafUnitsEndInBoundedTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := newHouse(t, drawUnits(t, rapid.IntRange(1, 6).Draw(t, "units")))
		h.StartAll()
		for _, name := range h.names() {
			h.launcher.ready(name)
		}
		h.StopAll()
		began := h.clock.now
		for h.clock.next() {
			if h.clock.now.Sub(began) > 6*(10*time.Second+killTime) {
				t.Fatal("it takes longer than the limits of six units in a row")
			}
		}
		for name, u := range h.units {
			if u.active() {
				t.Fatalf("%s is %s", name, u.state)
			}
		}
	})
}

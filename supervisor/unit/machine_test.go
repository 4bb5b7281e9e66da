package unit

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/waltos/waltos/hcl"
	"pgregory.net/rapid"
)

// reach brings unit "u" of a fresh house into each state.
var reach = map[State]func(h *house){
	Stopped:  func(h *house) {},
	Waiting:  func(h *house) { h.Start("u") },
	Blocked:  func(h *house) { h.Start("u"); h.launcher.exit("dep", false) },
	Starting: func(h *house) { h.Start("u"); h.launcher.ready("dep") },
	Running:  func(h *house) { h.Start("u"); h.launcher.ready("dep"); h.launcher.ready("u") },
	Done:     func(h *house) { h.Start("u"); h.launcher.ready("dep"); h.launcher.exit("u", true) },
	Backoff:  func(h *house) { h.Start("u"); h.launcher.ready("dep"); h.launcher.exit("u", false) },
	Stopping: func(h *house) { h.Start("u"); h.launcher.ready("dep"); h.launcher.ready("u"); h.Stop("u") },
	Killing: func(h *house) {
		h.Start("u")
		h.launcher.ready("dep")
		h.launcher.ready("u")
		h.Stop("u")
		h.clock.next()
	},
	Failed: func(h *house) {
		h.Start("u")
		h.launcher.ready("dep")
		h.launcher.exit("u", false)
		h.clock.next()
		h.launcher.exit("u", false)
	},
}

// walkUnits: u may end well ("on-failure"), fails for good at the second failure, and
// needs dep, which never restarts.
const walkUnits = `
unit "dep" {
  exec = ["/bin/dep"]
  ready { notify = true }
  restart { policy = "never" }
}
unit "u" {
  exec  = ["/bin/u"]
  needs = ["dep"]
  ready { notify = true }
  restart {
    policy  = "on-failure"
    give_up = "2 in 5m"
  }
}`

var events = []string{"start", "stop", "restart", "ready", "exit0", "exit1", "timeout", "dep ready", "dep fails"}

// matrix is the whole state machine: the state after each event in each state.
var matrix = map[State][]State{
	//         start     stop      restart   ready     exit0    exit1    timeout   dep ready dep fails
	Stopped:  {Waiting, Stopped, Waiting, Stopped, Stopped, Stopped, Stopped, Stopped, Stopped},
	Waiting:  {Waiting, Stopped, Waiting, Waiting, Waiting, Waiting, Waiting, Starting, Blocked},
	Blocked:  {Waiting, Stopped, Blocked, Blocked, Blocked, Blocked, Blocked, Starting, Blocked},
	Starting: {Starting, Stopping, Stopping, Running, Done, Backoff, Killing, Starting, Starting},
	Running:  {Running, Stopping, Stopping, Running, Done, Backoff, Running, Running, Running},
	Done:     {Done, Stopped, Starting, Done, Done, Done, Done, Done, Done},
	Backoff:  {Starting, Stopped, Starting, Backoff, Backoff, Backoff, Starting, Backoff, Backoff},
	Stopping: {Stopping, Stopping, Stopping, Stopping, Stopped, Stopped, Killing, Stopping, Stopping},
	Killing:  {Killing, Killing, Killing, Killing, Stopped, Stopped, Failed, Killing, Killing},
	Failed:   {Starting, Stopped, Starting, Failed, Failed, Failed, Failed, Failed, Failed},
}

func apply(h *house, event string) {
	switch event {
	case "start":
		h.Start("u")
	case "stop":
		h.Stop("u")
	case "restart":
		h.Restart("u")
	case "ready":
		h.launcher.ready("u")
	case "exit0":
		h.launcher.exit("u", true)
	case "exit1":
		h.launcher.exit("u", false)
	case "timeout":
		if u := h.units["u"]; u.timer != nil {
			timer := u.timer.(*fakeTimer)
			timer.stopped = true
			timer.f()
		}
	case "dep ready":
		h.Start("dep")
		h.launcher.ready("dep")
	case "dep fails":
		h.launcher.exit("dep", false)
	}
}

// TestEveryStateAndEvent walks all pairs, compares with the matrix, and finds no pair
// that the state machine calls impossible although it can happen.
func TestEveryStateAndEvent(t *testing.T) {
	for _, state := range States {
		for i, event := range events {
			h := newHouse(t, walkUnits)
			reach[state](h)
			h.want(t, "u", state)
			apply(h, event)
			if got := h.state("u"); got != matrix[state][i] {
				t.Errorf("%s, %s: %s, want %s", state, event, got, matrix[state][i])
			}
			for _, c := range h.changes {
				if strings.Contains(c.Reason, "internal error") {
					t.Errorf("%s, %s: %s", state, event, c.Reason)
				}
			}
		}
	}
}

// TestEveryStateHasAnExit: each state is left by some event, and a state that waits for
// time owns a timer, one that waits for a process a run.
func TestEveryStateHasAnExit(t *testing.T) {
	for _, state := range States {
		if !slices.ContainsFunc(matrix[state], func(next State) bool { return next != state }) {
			t.Errorf("nothing leads out of %s", state)
		}
		h := newHouse(t, walkUnits)
		reach[state](h)
		u := h.units["u"]
		if timed := slices.Contains([]State{Starting, Backoff, Stopping, Killing}, state); timed != (u.timer != nil) {
			t.Errorf("%s: timer present: %v", state, u.timer != nil)
		}
		if runs := slices.Contains([]State{Starting, Running, Stopping, Killing}, state); runs != (u.run != nil) {
			t.Errorf("%s: run present: %v", state, u.run != nil)
		}
	}
}

func TestGivesUpAndBacksOff(t *testing.T) {
	h := newHouse(t, `unit "u" {
		exec = ["/bin/u"]
		restart {
			delay = "100ms"
			max = "1s"
			give_up = "7 in 5m"
		}
	}`)
	h.Start("u")
	var delays []time.Duration
	for h.state("u") != Failed {
		h.want(t, "u", Starting)
		before := h.clock.now
		h.launcher.exit("u", false)
		if h.state("u") == Backoff {
			h.clock.next()
			delays = append(delays, h.clock.now.Sub(before))
		}
	}
	if got := fmt.Sprint(delays); got != "[100ms 200ms 400ms 800ms 1s 1s]" {
		t.Errorf("delays %s", got)
	}
	if reason := h.units["u"].reason; !strings.Contains(reason, "given up after 7 ends within 5m") {
		t.Errorf("reason %q", reason)
	}
}

func TestLongRunResetsBackoff(t *testing.T) {
	h := newHouse(t, `unit "u" { exec = ["/bin/u"] }`)
	h.Start("u")
	for range 5 {
		h.launcher.exit("u", false)
		h.clock.next()
	}
	h.launcher.ready("u")
	h.clock.now = h.clock.now.Add(time.Minute)
	h.launcher.exit("u", false)
	before := h.clock.now
	h.clock.next()
	if got := h.clock.now.Sub(before); got != 100*time.Millisecond {
		t.Errorf("delay %v", got)
	}
}

func TestNotReadyInTime(t *testing.T) {
	h := newHouse(t, walkUnits)
	reach[Starting](h)
	apply(h, "timeout")
	h.want(t, "u", Killing)
	if !h.launcher.runs["u"].killed {
		t.Error("it was not killed")
	}
	h.launcher.exit("u", false)
	h.want(t, "u", Backoff)
	if got := h.units["u"].reason; got != "not ready within 90s" {
		t.Errorf("reason %q", got)
	}
}

// TestStaleEvents: what an old run says has no effect on the new one.
func TestStaleEvents(t *testing.T) {
	h := newHouse(t, `unit "u" {
		exec = ["/bin/u"]
		ready { notify = true }
	}`)
	h.Start("u")
	old := h.launcher.runs["u"]
	h.launcher.exit("u", false)
	h.clock.next()
	h.want(t, "u", Starting)
	old.report(Event{Kind: Ready})
	old.report(Event{Kind: Exited, OK: false, Text: "twice"})
	h.want(t, "u", Starting)
}

func TestOneshotUndo(t *testing.T) {
	h := newHouse(t, `unit "o" {
		type = "oneshot"
		exec = ["/bin/up"]
		stop = ["/bin/down"]
	}`)
	h.Start("o")
	h.launcher.exit("o", true)
	h.want(t, "o", Done)
	h.Stop("o")
	h.want(t, "o", Stopping)
	if !h.launcher.runs["o"].undo {
		t.Error("the stop command was not run")
	}
	h.launcher.exit("o", false)
	h.want(t, "o", Stopped)
	if got := h.units["o"].reason; !strings.Contains(got, "stop command failed") {
		t.Errorf("reason %q", got)
	}
	h.Start("o")
	h.launcher.exit("o", false)
	h.want(t, "o", Failed)
}

const chain = `
unit "a" {
  exec = ["/bin/a"]
  ready { notify = true }
}
unit "b" {
  exec  = ["/bin/b"]
  needs = ["a"]
  ready { notify = true }
}
unit "c" {
  exec  = ["/bin/c"]
  after = ["b"]
  ready { notify = true }
  shutdown { signal = "INT" }
}
`

func TestOrder(t *testing.T) {
	h := newHouse(t, chain)
	h.StartAll()
	h.want(t, "b", Waiting)
	h.want(t, "c", Waiting)
	h.launcher.ready("a")
	h.launcher.ready("b")
	h.launcher.ready("c")
	if !Settled(h.Snapshot()) {
		t.Fatal("not settled")
	}
	done := h.StopAll()
	h.want(t, "c", Stopping)
	h.want(t, "b", Running)
	if got := h.launcher.runs["c"].signals; !slices.Equal(got, []syscall.Signal{syscall.SIGINT}) {
		t.Errorf("signals %v", got)
	}
	h.launcher.exit("c", false)
	h.want(t, "b", Stopping)
	h.want(t, "a", Running)
	h.launcher.exit("b", true)
	h.launcher.exit("a", true)
	h.want(t, "a", Stopped)
	select {
	case <-done:
	default:
		t.Error("StopAll does not know that all has stopped")
	}
}

// TestRestartLeavesDependents: a crash or a restart of a needed unit touches nobody else.
func TestRestartLeavesDependents(t *testing.T) {
	h := newHouse(t, chain)
	h.StartAll()
	for _, name := range []string{"a", "b", "c"} {
		h.launcher.ready(name)
	}
	h.Restart("a")
	h.launcher.exit("a", true)
	h.want(t, "a", Starting)
	h.want(t, "b", Running)
	h.launcher.exit("a", false)
	h.want(t, "a", Backoff)
	h.want(t, "b", Running)
	if h.launcher.released["a"] != 0 {
		t.Error("a restart released the sockets")
	}
	h.Stop("a")
	h.want(t, "a", Stopped)
	h.want(t, "b", Stopping)
	h.want(t, "c", Running)
}

func TestGroup(t *testing.T) {
	h := newHouse(t, chain+`unit "g" {
		type = "group"
		needs = ["a"]
		wants = ["c"]
	}`)
	h.Start("g")
	h.want(t, "b", Stopped)
	h.launcher.ready("a")
	h.want(t, "g", Waiting)
	h.launcher.exit("c", false)
	h.want(t, "g", Done)
	h.Restart("g")
	h.want(t, "a", Stopping)
	h.want(t, "c", Backoff)
	if err := h.Restart("nobody"); err == nil {
		t.Error("an unknown unit was restarted")
	}
}

// TestRandomGraphs drives random graphs by random events and checks what must hold at any
// time; then everything is stopped, and must be.
func TestRandomGraphs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		count := rapid.IntRange(1, 6).Draw(t, "units")
		var text strings.Builder
		for i := range count {
			fmt.Fprintf(&text, "unit \"u%d\" {\n", i)
			kind := rapid.SampledFrom([]string{"service", "oneshot", "group"}).Draw(t, "type")
			fmt.Fprintf(&text, "type = %q\n", kind)
			if kind != "group" {
				fmt.Fprintf(&text, "exec = [\"/bin/x\"]\nready { notify = %v }\nrestart {\n policy = %q\n give_up = \"3 in 1m\"\n}\n",
					kind == "service", rapid.SampledFrom([]string{"always", "on-failure", "never"}).Draw(t, "policy"))
			}
			if kind == "oneshot" && rapid.Bool().Draw(t, "undo") {
				text.WriteString("stop = [\"/bin/y\"]\n")
			}
			deps := map[string][]string{}
			for j := range i {
				if k := rapid.SampledFrom([]string{"", "", "needs", "wants", "after"}).Draw(t, "edge"); k != "" {
					deps[k] = append(deps[k], fmt.Sprintf("%q", fmt.Sprintf("u%d", j)))
				}
			}
			for k, list := range deps {
				fmt.Fprintf(&text, "%s = [%s]\n", k, strings.Join(list, ", "))
			}
			text.WriteString("}\n")
		}
		h := newHouse(t, text.String())
		stopping := false
		h.launcher.launched = func(u *hcl.Unit) {
			if h.launcher.runs[u.Name] != nil {
				t.Fatalf("%s was launched although it is there", u.Name)
			}
			if h.units[u.Name].undoing {
				return
			}
			if stopping {
				t.Fatalf("%s was launched during the stop of all", u.Name)
			}
			for _, need := range u.Needs {
				if s := h.state(need); s != Running && s != Done {
					t.Fatalf("%s was launched although %s is %s", u.Name, need, s)
				}
			}
		}
		check := func() {
			for _, c := range h.changes {
				if strings.Contains(c.Reason, "internal error") {
					t.Fatalf("%s: %s", c.Unit, c.Reason)
				}
				if stopping && c.New == Stopping {
					for _, other := range h.units {
						if slices.Contains(other.unit.Dependencies(), c.Unit) && other.active() && other.state != Done {
							t.Fatalf("%s is stopped before %s, which is %s", c.Unit, other.unit.Name, other.state)
						}
					}
				}
			}
			h.changes = nil
			for name, u := range h.units {
				if (u.run != nil) != (h.launcher.runs[name] != nil) {
					t.Fatalf("%s is %s; run known: %v, there: %v", name, u.state, u.run != nil, h.launcher.runs[name] != nil)
				}
			}
		}
		name := rapid.Custom(func(t *rapid.T) string { return fmt.Sprintf("u%d", rapid.IntRange(0, count-1).Draw(t, "unit")) })
		t.Repeat(map[string]func(*rapid.T){
			"start":   func(t *rapid.T) { h.Start(name.Draw(t, "name")) },
			"stop":    func(t *rapid.T) { h.Stop(name.Draw(t, "name")) },
			"restart": func(t *rapid.T) { h.Restart(name.Draw(t, "name")) },
			"ready":   func(t *rapid.T) { h.launcher.ready(name.Draw(t, "name")) },
			"exit":    func(t *rapid.T) { h.launcher.exit(name.Draw(t, "name"), rapid.Bool().Draw(t, "ok")) },
			"time":    func(t *rapid.T) { h.clock.next() },
			"all":     func(t *rapid.T) { h.StartAll() },
			"":        func(*rapid.T) { check() },
		})
		stopping = true
		done := h.StopAll()
		for range 4 * count {
			check()
			for name := range h.units {
				h.launcher.exit(name, true)
			}
		}
		for name, u := range h.units {
			if u.active() || u.state != Stopped {
				t.Fatalf("%s is %s after the stop of all", name, u.state)
			}
		}
		select {
		case <-done:
		default:
			t.Fatal("StopAll does not know that all has stopped")
		}
	})
}

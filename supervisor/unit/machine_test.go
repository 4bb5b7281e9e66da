package unit

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// walkUnits: u may end well ("on-failure"), fails for good at the second failure, and
// needs dep, which never restarts. More is put in for the states of other kinds of units.
const walkUnits = `
unit "dep" {
  exec = ["/bin/dep"]
  ready { notify = true }
  restart { policy = "never" }
}
unit "u" {
  exec  = ["/bin/u"]
  needs = ["dep"]
  restart {
    policy  = "on-failure"
    give_up = "2 in 5m"
  }
  MORE
}`

const (
	walkService = `ready { notify = true }
  alive { notify = true }
  reload { signal = "HUP" }`
	walkOnDemand = walkService + `
  on_demand = true
  socket "s" { listen = "unix:/s" }`
	walkJob = `type = "oneshot"
  timer { every = "5m" }`
)

// way is how unit "u" of a fresh house comes into a state.
type way struct {
	unit string
	do   []string
}

var reach = map[State]way{
	Stopped:   {walkService, nil},
	Waiting:   {walkService, []string{"start"}},
	Blocked:   {walkService, []string{"start", "dep fails"}},
	Scheduled: {walkJob, []string{"all"}},
	Listening: {walkOnDemand, []string{"all", "ready"}},
	Starting:  {walkService, []string{"start", "dep ready"}},
	Running:   {walkService, []string{"start", "dep ready", "ready"}},
	Reloading: {walkService, []string{"start", "dep ready", "ready", "reload"}},
	Done:      {walkService, []string{"start", "dep ready", "exit0"}},
	Backoff:   {walkService, []string{"start", "dep ready", "exit1"}},
	Stopping:  {walkService, []string{"start", "dep ready", "ready", "stop"}},
	Killing:   {walkService, []string{"start", "dep ready", "ready", "stop", "timeout"}},
	Failed:    {walkService, []string{"start", "dep ready", "exit1", "timeout", "exit1"}},
}

// newWalk returns a house with u in that state.
func newWalk(t *testing.T, state State) *house {
	t.Helper()
	h := newHouse(t, strings.Replace(walkUnits, "MORE", reach[state].unit, 1))
	for _, event := range reach[state].do {
		apply(h, event)
	}
	h.want(t, "u", state)
	return h
}

var events = []string{
	"start", "stop", "restart", "ready", "exit0", "exit1", "timeout", "dep ready", "dep fails",
	"reload", "reloads", "reloaded", "reload fails", "stops", "extends", "lives", "pulse", "skipped", "redefine", "renew", "all",
}

// matrix is the whole state machine: what an event makes of a state. An event that is not
// there leaves the state as it is.
var matrix = map[State]map[string]State{
	Stopped:   {"start": Waiting, "restart": Waiting, "all": Waiting},
	Waiting:   {"stop": Stopped, "dep ready": Starting, "dep fails": Blocked},
	Blocked:   {"start": Waiting, "stop": Stopped, "dep ready": Starting, "renew": Blocked, "all": Waiting},
	Scheduled: {"start": Waiting, "stop": Stopped, "restart": Waiting, "timeout": Waiting},
	Listening: {
		"start": Stopping, "stop": Stopping, "restart": Stopping, "exit0": Waiting, "exit1": Backoff, "skipped": Waiting, "renew": Stopping,
	},
	Starting: {
		"stop": Stopping, "restart": Stopping, "ready": Running, "exit0": Done, "exit1": Backoff, "timeout": Killing,
		"dep fails": Stopping, "stops": Stopping, "skipped": Done, "renew": Stopping,
	},
	Running: {
		"stop": Stopping, "restart": Stopping, "exit0": Done, "exit1": Backoff, "dep fails": Stopping,
		"reload": Reloading, "reloads": Reloading, "stops": Stopping, "pulse": Stopping, "skipped": Done, "renew": Stopping,
	},
	Reloading: {
		"stop": Stopping, "restart": Stopping, "ready": Running, "exit0": Done, "exit1": Backoff, "timeout": Running,
		"dep fails": Stopping, "reloaded": Running, "reload fails": Running, "stops": Stopping, "skipped": Done, "renew": Stopping,
	},
	Done:     {"stop": Stopped, "restart": Starting, "renew": Starting, "dep fails": Blocked},
	Backoff:  {"start": Starting, "stop": Stopped, "restart": Starting, "timeout": Starting, "renew": Starting, "all": Starting},
	Stopping: {"exit0": Stopped, "exit1": Stopped, "timeout": Killing, "skipped": Stopped},
	Killing:  {"exit0": Stopped, "exit1": Stopped, "timeout": Failed, "skipped": Stopped},
	Failed:   {"start": Starting, "stop": Stopped, "restart": Starting, "renew": Starting, "all": Starting},
}

func apply(h *house, event string) {
	u := h.units["u"]
	switch event {
	case "start":
		h.Start("u")
	case "stop":
		h.Stop("u")
	case "restart":
		h.Restart("u")
	case "all":
		h.StartAll()
	case "ready":
		h.launcher.ready("u")
	case "exit0":
		h.launcher.exit("u", true)
	case "exit1":
		h.launcher.exit("u", false)
	case "skipped":
		h.launcher.exitAs("u", Event{Kind: Exited, OK: true, Skipped: true, Text: "skipped"})
	case "timeout":
		h.ring(&u.limit)
	case "pulse":
		h.ring(&u.pulse)
	case "dep ready":
		h.Start("dep")
		h.launcher.ready("dep")
	case "dep fails":
		h.launcher.exit("dep", false)
	case "reload":
		h.Reload("u")
	case "reloads":
		h.launcher.tell("u", Event{Kind: Reloads})
	case "reloaded":
		h.launcher.tell("u", Event{Kind: Reloaded, OK: true})
	case "reload fails":
		h.launcher.tell("u", Event{Kind: Reloaded, Text: "no"})
	case "stops":
		h.launcher.tell("u", Event{Kind: Stops})
	case "extends":
		h.launcher.tell("u", Event{Kind: Extends, Time: time.Hour})
	case "lives":
		h.launcher.tell("u", Event{Kind: Lives})
	case "redefine", "renew":
		next := *u.unit
		next.Description = "another"
		h.locked(func() { u.redefine(&next, event == "renew") })
	default:
		panic(event)
	}
}

// ring lets an alarm go off, if it is set.
func (h *house) ring(a *alarm) {
	if a.timer != nil {
		timer := a.timer.(*fakeTimer)
		timer.stopped = true
		h.clock.now = timer.at
		timer.f()
	}
}

// TestEveryStateAndEvent walks all pairs, compares with the matrix, and finds no pair
// that the state machine calls impossible although it can happen.
func TestEveryStateAndEvent(t *testing.T) {
	for _, state := range States {
		for event := range matrix[state] {
			if !slices.Contains(events, event) {
				t.Errorf("%s: there is no event %q", state, event)
			}
		}
		for _, event := range events {
			h := newWalk(t, state)
			apply(h, event)
			want, ok := matrix[state][event]
			if !ok {
				want = state
			}
			if got := h.state("u"); got != want {
				t.Errorf("%s, %s: %s, want %s", state, event, got, want)
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
		exits := 0
		for _, next := range matrix[state] {
			if next != state {
				exits++
			}
		}
		if exits == 0 {
			t.Errorf("nothing leads out of %s", state)
		}
		u := newWalk(t, state).units["u"]
		if timed := slices.Contains([]State{Scheduled, Starting, Reloading, Backoff, Stopping, Killing}, state); timed != (u.limit.timer != nil) {
			t.Errorf("%s: timer present: %v", state, u.limit.timer != nil)
		}
		if runs := slices.Contains([]State{Listening, Starting, Running, Reloading, Stopping, Killing}, state); runs != (u.run != nil) {
			t.Errorf("%s: run present: %v", state, u.run != nil)
		}
		if beats := state == Running; beats != (u.pulse.timer != nil) {
			t.Errorf("%s: pulse present: %v", state, u.pulse.timer != nil)
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
	h := newWalk(t, Starting)
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
	if h.launcher.runs["o"].task != Undo {
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

// TestUndoOfService: what a service has left is ended in order when it is stopped, not when it
// is restarted or crashes.
func TestUndoOfService(t *testing.T) {
	h := newHouse(t, `unit "s" {
		exec = ["/bin/s"]
		stop = ["/bin/end"]
		shutdown { kill = "main" }
	}`)
	task := func(want Task) {
		t.Helper()
		if got := h.launcher.runs["s"].task; got != want {
			t.Errorf("task %v, want %v", got, want)
		}
	}
	h.Start("s")
	h.launcher.ready("s")
	h.launcher.exit("s", false)
	h.want(t, "s", Backoff)
	h.clock.next()
	task(Main)
	h.launcher.ready("s")
	h.Restart("s")
	h.launcher.exit("s", true)
	h.want(t, "s", Starting)
	task(Main)
	h.launcher.ready("s")
	h.Stop("s")
	h.want(t, "s", Stopping)
	task(Main)
	h.launcher.exit("s", true)
	h.want(t, "s", Stopping)
	task(Undo)
	if h.launcher.released["s"] != 0 {
		t.Error("what is to be ended in order was killed")
	}
	h.launcher.exit("s", true)
	h.want(t, "s", Stopped)
	if h.launcher.released["s"] != 1 {
		t.Errorf("released %d times", h.launcher.released["s"])
	}
	// A stop command that hangs is killed.
	h.Start("s")
	h.launcher.ready("s")
	h.Stop("s")
	h.launcher.exit("s", true)
	h.clock.next()
	h.want(t, "s", Killing)
	h.launcher.exit("s", false)
	h.want(t, "s", Stopped)
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

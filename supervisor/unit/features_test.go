package unit

import (
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// reasonOf returns why a unit is in its state.
func (h *house) reasonOf(name string) string { return h.units[name].reason }

func (h *house) wantReason(t *testing.T, name, part string) {
	t.Helper()
	if got := h.reasonOf(name); !strings.Contains(got, part) {
		t.Errorf("%s is %s because %q, want %q", name, h.state(name), got, part)
	}
}

// TestNeedsFailsWith: a unit whose need fails for good is ended and blocked, and so is what
// needs that one; when the need comes back they do.
func TestNeedsFailsWith(t *testing.T) {
	h := newHouse(t, `
unit "a" {
  exec = ["/a"]
  ready { notify = true }
  restart { give_up = "2 in 1m" }
}
unit "b" {
  exec = ["/b"]
  needs = ["a"]
  ready { notify = true }
}
unit "g" {
  type = "group"
  needs = ["b"]
}
unit "w" {
  exec = ["/w"]
  wants = ["b"]
  ready { notify = true }
}`)
	h.StartAll()
	h.launcher.ready("a")
	h.launcher.ready("b")
	h.launcher.ready("w")
	h.want(t, "g", Done)
	h.launcher.exit("a", false)
	h.want(t, "a", Backoff)
	h.want(t, "b", Running)
	h.clock.next()
	h.launcher.exit("a", false)
	h.want(t, "a", Failed)
	h.want(t, "b", Stopping)
	h.launcher.exit("b", true)
	h.want(t, "b", Blocked)
	h.wantReason(t, "b", "it needs a, which is failed")
	h.want(t, "g", Blocked)
	h.wantReason(t, "g", "it needs b, which is blocked")
	h.want(t, "w", Running)
	if err := h.Start("a"); err != nil {
		t.Fatal(err)
	}
	h.launcher.ready("a")
	h.launcher.ready("b")
	h.want(t, "b", Running)
	h.want(t, "g", Done)
	if h.units["a"].ends != nil {
		t.Error("a start by hand has not forgotten the failures")
	}
}

const bound = `
unit "a" {
  exec = ["/a"]
  ready { notify = true }
}
unit "b" {
  exec  = ["/b"]
  binds = ["a"]
  ready { notify = true }
}
unit "c" {
  exec  = ["/c"]
  binds = ["b"]
  ready { notify = true }
}
unit "d" {
  exec  = ["/d"]
  needs = ["a"]
  ready { notify = true }
}`

func startBound(t *testing.T) *house {
	h := newHouse(t, bound)
	h.StartAll()
	for _, name := range []string{"a", "b", "c", "d"} {
		h.launcher.ready(name)
		h.want(t, name, Running)
	}
	return h
}

// TestBindsRestartsTogether: a restart ends what is bound first and starts it last, and leaves
// alone what only needs.
func TestBindsRestartsTogether(t *testing.T) {
	h := startBound(t)
	h.Restart("a")
	h.want(t, "a", Running)
	h.want(t, "b", Running)
	h.want(t, "c", Stopping)
	h.launcher.exit("c", true)
	h.want(t, "c", Waiting)
	h.want(t, "b", Stopping)
	h.launcher.exit("b", true)
	h.want(t, "a", Stopping)
	h.wantReason(t, "b", "it is bound to a")
	h.launcher.exit("a", true)
	h.want(t, "a", Starting)
	h.want(t, "b", Waiting)
	for _, name := range []string{"a", "b", "c"} {
		h.want(t, name, Starting)
		h.launcher.ready(name)
		h.want(t, name, Running)
	}
	if n := len(h.launcher.runs["d"].signals); n != 0 {
		t.Errorf("d got %d signals", n)
	}
}

// TestBindsFollowsACrash: what is bound is ended when its unit crashes.
func TestBindsFollowsACrash(t *testing.T) {
	h := startBound(t)
	h.launcher.exit("a", false)
	h.want(t, "a", Backoff)
	h.want(t, "b", Running) // it waits for c
	h.want(t, "c", Stopping)
	h.launcher.exit("c", true)
	h.launcher.exit("b", true)
	h.want(t, "b", Waiting)
	h.want(t, "d", Running)
	h.clock.next()
	h.launcher.ready("a")
	h.launcher.ready("b")
	h.launcher.ready("c")
	h.want(t, "c", Running)
	h.Stop("a")
	for _, name := range []string{"d", "c", "b", "a"} {
		h.want(t, name, Stopping)
		h.launcher.exit(name, true)
		h.want(t, name, Stopped)
	}
}

// TestStopOfAMemberLeavesTheOthers: stopping one member of a group stops the group, which has
// failed its promise, and no other member.
func TestStopOfAMemberLeavesTheOthers(t *testing.T) {
	h := newHouse(t, `
unit "a" { exec = ["/a"] }
unit "b" { exec = ["/b"] }
unit "g" {
  type = "group"
  needs = ["a", "b"]
}`)
	h.Start("g")
	h.launcher.ready("a")
	h.launcher.ready("b")
	h.want(t, "g", Done)
	h.Stop("a")
	h.want(t, "a", Stopping)
	h.want(t, "b", Running)
	h.want(t, "g", Stopped)
	h.launcher.exit("a", true)
	h.Start("g")
	h.launcher.ready("a")
	h.want(t, "g", Done)
	h.Stop("g")
	h.want(t, "b", Stopping)
}

func TestOnDemand(t *testing.T) {
	h := newHouse(t, `
unit "dep" {
  exec = ["/dep"]
  ready { notify = true }
}
unit "lazy" {
  exec = ["/lazy"]
  needs = ["dep"]
  on_demand = true
  socket "s" { listen = "unix:/s" }
  ready { notify = true }
}
unit "user" {
  exec = ["/user"]
  needs = ["lazy"]
}`)
	h.StartAll()
	h.want(t, "user", Waiting) // for the sockets
	h.launcher.ready("lazy")
	h.want(t, "lazy", Listening) // before dep is there
	h.want(t, "user", Starting)
	if task := h.launcher.runs["lazy"].task; task != Listen {
		t.Errorf("task %d", task)
	}
	h.launcher.exit("lazy", true) // a peer
	h.want(t, "lazy", Waiting)
	h.launcher.ready("dep")
	h.want(t, "lazy", Starting)
	h.launcher.ready("lazy")
	h.want(t, "lazy", Running)
	// A crash starts it again without a peer, a good end waits for one, after a pause.
	h.launcher.exit("lazy", false)
	h.want(t, "lazy", Backoff)
	h.clock.next()
	h.want(t, "lazy", Starting)
	h.launcher.exit("lazy", true)
	h.want(t, "lazy", Backoff)
	h.clock.next()
	h.launcher.ready("lazy")
	h.want(t, "lazy", Listening)
	// By hand it starts at once.
	h.Start("lazy")
	h.want(t, "lazy", Stopping)
	h.launcher.exit("lazy", false)
	h.want(t, "lazy", Starting)
	h.launcher.ready("lazy")
	h.Stop("lazy")
	h.launcher.exit("user", true)
	h.launcher.exit("lazy", true)
	h.want(t, "lazy", Stopped)
	if h.launcher.released["lazy"] == 0 {
		t.Error("the sockets of a stopped unit are kept")
	}
}

func TestProbesOfLife(t *testing.T) {
	h := newHouse(t, `unit "u" {
		exec = ["/u"]
		ready { notify = true }
		alive {
			tcp = "127.0.0.1:1"
			period = "10s"
			timeout = "2s"
			threshold = 3
			signal = "ABRT"
		}
	}`)
	h.Start("u")
	h.launcher.ready("u")
	run := h.launcher.runs["u"]
	answer := func(ok bool) {
		t.Helper()
		probes := run.probes
		h.clock.next()
		if run.probes != probes+1 {
			t.Fatalf("%d probes, want %d", run.probes, probes+1)
		}
		run.report(Event{Kind: Probed, OK: ok, Text: "refused"})
	}
	began := h.clock.now
	answer(true)
	if got := h.clock.now.Sub(began); got != 10*time.Second {
		t.Errorf("the first probe came after %v", got)
	}
	answer(false)
	answer(false)
	answer(true) // the count begins anew
	answer(false)
	answer(false)
	h.want(t, "u", Running)
	answer(false)
	h.want(t, "u", Stopping)
	h.wantReason(t, "u", "3 probes of life in a row failed: refused")
	if !slices.Equal(run.signals, []syscall.Signal{syscall.SIGABRT}) {
		t.Errorf("signals %v", run.signals)
	}
	h.clock.next() // deaf to the signal
	h.want(t, "u", Killing)
	h.launcher.exit("u", false)
	h.want(t, "u", Backoff)
	h.wantReason(t, "u", "probes of life")
	// A probe that never answers counts too: the launcher is not relied upon.
	h.clock.next()
	h.launcher.ready("u")
	for range 4 {
		h.want(t, "u", Running)
		h.clock.next()
	}
	h.want(t, "u", Stopping)
	h.wantReason(t, "u", "no answer")
}

func TestWatchdog(t *testing.T) {
	h := newHouse(t, `unit "u" {
		exec = ["/u"]
		ready { notify = true }
		alive {
			notify = true
			period = "10s"
		}
	}`)
	h.Start("u")
	h.launcher.tell("u", Event{Kind: Lives}) // too early to count
	h.launcher.ready("u")
	for range 3 {
		h.clock.now = h.clock.now.Add(9 * time.Second)
		h.launcher.tell("u", Event{Kind: Lives})
	}
	last := h.clock.now
	h.clock.next()
	h.want(t, "u", Stopping)
	h.wantReason(t, "u", "no sign of life within 10s")
	if got := h.clock.now.Sub(last); got != 10*time.Second {
		t.Errorf("the watchdog waited %v", got)
	}
	h.launcher.exit("u", true)
	h.want(t, "u", Backoff)
	h.clock.next()
	h.launcher.ready("u")
	h.launcher.tell("u", Event{Kind: Hangs})
	h.want(t, "u", Stopping)
	h.wantReason(t, "u", "asked for a restart")
}

func TestMoreTime(t *testing.T) {
	h := newHouse(t, `unit "u" {
		exec = ["/u"]
		ready {
			notify = true
			timeout = "10s"
		}
	}`)
	h.Start("u")
	began := h.clock.now
	h.launcher.tell("u", Event{Kind: Extends, Time: 5 * time.Second}) // no more than it has
	h.clock.now = began.Add(8 * time.Second)
	h.launcher.tell("u", Event{Kind: Extends, Time: 30 * time.Second})
	h.clock.next()
	h.want(t, "u", Killing)
	if got := h.clock.now.Sub(began); got != 38*time.Second {
		t.Errorf("it had %v", got)
	}
	h.launcher.exit("u", false)
	h.clock.next()
	began = h.clock.now
	h.launcher.tell("u", Event{Kind: Extends, Time: 1000 * time.Hour})
	h.clock.next()
	if got := h.clock.now.Sub(began); got != maxExtension {
		t.Errorf("it had %v", got)
	}
}

func TestReload(t *testing.T) {
	h := newHouse(t, `
unit "u" {
  exec = ["/u"]
  ready { notify = true }
  reload {
    exec = ["/reload"]
    timeout = "5s"
  }
}
unit "v" { exec = ["/v"] }`)
	h.StartAll()
	if err := h.Reload("u"); err == nil {
		t.Error("a unit that starts was reloaded")
	}
	h.launcher.ready("u")
	h.launcher.ready("v")
	if err := h.Reload("v"); err == nil || !strings.Contains(err.Error(), "no reload block") {
		t.Errorf("got %v", err)
	}
	if err := h.Reload("x"); err == nil {
		t.Error("an unknown unit was reloaded")
	}
	reload := func() {
		t.Helper()
		if err := h.Reload("u"); err != nil {
			t.Fatal(err)
		}
		h.want(t, "u", Reloading)
	}
	reload()
	h.launcher.tell("u", Event{Kind: Reloaded, Text: "exited with status 1"})
	h.want(t, "u", Running)
	h.wantReason(t, "u", "the reload failed: exited with status 1")
	reload()
	h.launcher.tell("u", Event{Kind: Reloads}) // it says itself when it is done
	h.launcher.tell("u", Event{Kind: Reloaded, OK: true})
	h.want(t, "u", Reloading)
	h.launcher.ready("u")
	h.want(t, "u", Running)
	reload()
	h.clock.next()
	h.want(t, "u", Running)
	h.wantReason(t, "u", "not ended in time")
	if n := h.launcher.runs["u"].reloads; n != 3 {
		t.Errorf("%d reloads", n)
	}
	if u := h.units["u"]; u.restarts != 0 || !u.up.Equal(u.ready) {
		t.Error("a reload counts as a start")
	}
}

// TestEndsByItself: a service that says STOPPING=1 is expected to end, and no more.
func TestEndsByItself(t *testing.T) {
	h := newWalk(t, Running)
	h.launcher.tell("u", Event{Kind: Stops})
	h.want(t, "u", Stopping)
	if n := len(h.launcher.runs["u"].signals); n != 0 {
		t.Errorf("%d signals", n)
	}
	h.launcher.exit("u", true)
	h.want(t, "u", Done)
	h.Restart("u")
	h.launcher.ready("u")
	h.launcher.tell("u", Event{Kind: Stops})
	h.clock.next()
	h.want(t, "u", Killing)
	h.launcher.exit("u", false)
	h.want(t, "u", Backoff)
}

func TestConditions(t *testing.T) {
	h := newHouse(t, `
unit "a" { exec = ["/a"] }
unit "b" {
  exec = ["/b"]
  needs = ["a"]
}`)
	h.StartAll()
	h.launcher.exitAs("a", Event{Kind: Exited, OK: true, Skipped: true, Text: "skipped: /x does not exist"})
	h.want(t, "a", Done)
	h.wantReason(t, "a", "/x does not exist")
	h.want(t, "b", Starting)
}

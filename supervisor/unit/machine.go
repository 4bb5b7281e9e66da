package unit

import (
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/waltos/waltos/hcl"
)

// State is where a unit is in its life.
type State string

// The states of a unit. What each one waits for, and hence how it is left, is written
// beside it; TestEveryStateHasAnExit checks it.
const (
	Stopped  State = "stopped"  // for Start
	Waiting  State = "waiting"  // for a change of a unit it depends on
	Blocked  State = "blocked"  // for a needed unit, which has failed or is stopped, to run
	Starting State = "starting" // for readiness, the end of its process, or the ready timer
	Running  State = "running"  // for the end of its process
	Done     State = "done"     // for Stop; a oneshot that succeeded, a group, a service that may end
	Backoff  State = "backoff"  // for the restart timer
	Stopping State = "stopping" // for the end of its process or the stop timer
	Killing  State = "killing"  // for the end of its process or the kill timer
	Failed   State = "failed"   // for Start
)

// States lists all states.
var States = []State{Stopped, Waiting, Blocked, Starting, Running, Done, Backoff, Stopping, Killing, Failed}

// killTime is how long a killed control group may take to vanish: only a process
// that the kernel holds in uninterruptible sleep needs any.
const killTime = 10 * time.Second

// maxBackoffShift keeps the doubling of restart delays from overflowing.
const maxBackoffShift = 20

// machine is one unit with its state. All fields belong to the manager's lock; the
// methods below are called with it held.
type machine struct {
	m    *Manager
	unit *hcl.Unit

	state  State
	since  time.Time
	reason string // why it is in this state, in words; may be empty
	status string // last sd_notify STATUS

	// wanted: somebody started it and nobody stopped it since. A running unit that is
	// not wanted waits for the units that depend on it to end, then it is stopped.
	wanted bool

	run        Run
	generation int // of run and timer; events of an older one are stale
	pid        int
	timer      Timer
	undoing    bool   // the run is the stop command of a oneshot
	failure    string // why the supervisor itself ended the run; counts as a failure

	restarts    int         // since boot
	consecutive int         // failures without a long run between them
	ends        []time.Time // failures within the give-up window

	began, ready time.Time // first start and first readiness, for the boot report
}

// enter is the only place where a state changes. It ends the timer of the old state.
func (u *machine) enter(state State, reason string) {
	if u.timer != nil {
		u.timer.Stop()
		u.timer = nil
	}
	old, now := u.state, u.m.clock.Now()
	took := now.Sub(u.since)
	u.state, u.reason, u.since = state, reason, now
	switch state {
	case Starting:
		u.status = ""
		if u.began.IsZero() {
			u.began = u.since
		}
	case Running, Done:
		if u.ready.IsZero() {
			u.ready = u.since
		}
	case Stopped, Failed, Backoff, Blocked:
		u.pid, u.status = 0, ""
	}
	u.m.note(Change{Unit: u.unit.Name, Old: old, New: state, Reason: reason, Wanted: u.wanted, Time: now, Took: took})
}

// arm starts the timer of the state just entered.
func (u *machine) arm(d time.Duration) {
	state, generation := u.state, u.generation
	u.timer = u.m.clock.AfterFunc(d, func() {
		u.m.locked(func() {
			if u.state == state && u.generation == generation {
				u.timer = nil
				u.timeout()
			}
		})
	})
}

// start wants the unit.
func (u *machine) start() {
	u.wanted = true
	switch u.state {
	case Stopped, Failed, Blocked, Backoff:
		if u.killAgain() {
			return
		}
		u.consecutive, u.ends = 0, nil
		u.enter(Waiting, "")
	case Waiting, Starting, Running, Done:
	case Stopping, Killing:
		// It starts again once it has ended.
	}
}

// stop no longer wants the unit. What runs is ended by settle, once no unit that
// depends on it is left.
func (u *machine) stop() {
	u.wanted = false
	switch u.state {
	case Waiting, Blocked, Backoff, Failed:
		if u.killAgain() {
			return
		}
		u.enter(Stopped, "stopped by request")
		u.m.launcher.Release(u.unit)
	case Stopped, Starting, Running, Done, Stopping, Killing:
	}
}

// killAgain goes back to killing what could not be killed before, if that is why the
// unit has failed: there are never two runs of a unit.
func (u *machine) killAgain() bool {
	if u.run == nil {
		return false
	}
	u.failure = ""
	u.enter(Killing, "killed again")
	u.arm(killTime)
	u.run.Kill()
	return true
}

// startTree starts the unit and what it needs or wants, as far as nobody has.
func (u *machine) startTree() {
	u.start()
	for _, name := range slices.Concat(u.unit.Needs, u.unit.Wants) {
		if other := u.m.units[name]; !other.wanted {
			other.startTree()
		}
	}
}

// restart ends the process and starts it again; sockets and stored descriptors stay.
func (u *machine) restart() {
	switch u.state {
	case Stopped, Failed, Blocked, Backoff:
		u.startTree()
	case Starting, Running, Done:
		u.wanted = true
		u.consecutive, u.ends = 0, nil
		u.end("restarted by request")
	case Stopping, Killing:
		u.wanted = true
	case Waiting:
	}
}

// settle does what the states of other units allow now, and reports whether it did
// anything.
func (u *machine) settle() bool {
	switch u.state {
	case Waiting, Blocked:
		return u.tryStart()
	case Starting, Running, Done:
		if !u.wanted && !u.m.activeDependents(u) {
			u.end("stopped by request")
			return true
		}
	case Stopped, Backoff, Stopping, Killing, Failed:
	}
	return false
}

func (u *machine) tryStart() bool {
	for _, name := range u.unit.Needs {
		switch need := u.m.units[name]; need.state {
		case Running, Done:
		case Failed, Blocked, Stopped:
			if u.state != Blocked {
				u.enter(Blocked, fmt.Sprintf("it needs %s, which is %s", name, need.state))
				return true
			}
			return false
		default:
			return false
		}
	}
	for _, name := range slices.Concat(u.unit.Wants, u.unit.After) {
		if other := u.m.units[name]; other.wanted && !other.settled() {
			return false
		}
	}
	if u.unit.Type == "group" {
		u.enter(Done, "")
		return true
	}
	u.generation++
	u.failure, u.undoing = "", false
	u.enter(Starting, "")
	u.arm(duration(u.unit.Ready.Timeout))
	u.run = u.m.launch(u, false)
	return true
}

// settled: the unit has had a result, good or bad, and whoever only wants it may go on.
func (u *machine) settled() bool {
	switch u.state {
	case Running, Done, Failed, Blocked, Backoff:
		return true
	case Stopped, Waiting, Starting, Stopping, Killing:
		return false
	}
	panic("internal error: unit " + u.unit.Name + " is in the unknown state " + string(u.state))
}

// active: something of the unit is there that a unit below it must outlive.
func (u *machine) active() bool {
	switch u.state {
	case Starting, Running, Done, Stopping, Killing:
		return true
	case Stopped, Waiting, Blocked, Backoff, Failed:
		return false
	}
	panic("internal error: unit " + u.unit.Name + " is in the unknown state " + string(u.state))
}

// end begins the end of an active unit.
func (u *machine) end(reason string) {
	switch u.state {
	case Starting, Running:
		u.enter(Stopping, reason)
		u.arm(duration(u.unit.Shutdown.Timeout))
		u.run.Signal(signals[u.unit.Shutdown.Signal])
	case Done:
		if len(u.unit.Stop) == 0 {
			u.rest(reason)
			return
		}
		u.generation++
		u.failure, u.undoing = "", true
		u.enter(Stopping, reason)
		u.arm(duration(u.unit.Shutdown.Timeout))
		u.run = u.m.launch(u, true)
	case Stopped, Waiting, Blocked, Backoff, Failed, Stopping, Killing:
	}
}

// rest is where a unit goes that ended because it was asked to.
func (u *machine) rest(reason string) {
	if u.wanted {
		u.enter(Waiting, reason)
		return
	}
	u.enter(Stopped, reason)
	u.m.launcher.Release(u.unit)
}

// isReady: the process does its work.
func (u *machine) isReady() {
	switch u.state {
	case Starting:
		if u.unit.Type != "oneshot" {
			u.enter(Running, "")
		}
	case Stopped, Waiting, Blocked, Running, Done, Backoff, Stopping, Killing, Failed:
		// Readiness said twice, or too late to matter.
	}
}

// exited: nothing of the run is left.
func (u *machine) exited(ok bool, how string) {
	u.run, u.pid = nil, 0
	switch u.state {
	case Starting, Running:
		u.ended(ok, how)
	case Stopping, Killing:
		switch {
		case u.failure != "":
			u.ended(false, u.failure)
		case u.undoing && !ok:
			u.rest("its stop command failed: " + how)
		default:
			u.rest(u.reason)
		}
	case Failed:
		// It was declared unkillable and has died after all.
		u.reason = how
	case Stopped, Waiting, Blocked, Done, Backoff:
		u.m.internalError(u, "exited")
	}
}

// ended is the end of a process that nobody asked for.
func (u *machine) ended(ok bool, how string) {
	if u.unit.Type == "oneshot" && ok {
		u.enter(Done, "")
		return
	}
	if !u.wanted {
		u.rest(how)
		return
	}
	switch policy := u.unit.Restart.Policy; {
	case policy == "never" && !ok:
		u.enter(Failed, how)
		return
	case ok && policy != "always":
		u.enter(Done, how)
		return
	}
	now := u.m.clock.Now()
	longest := duration(u.unit.Restart.Max)
	if u.state == Running && now.Sub(u.since) > longest {
		u.consecutive = 0
	}
	count, within, err := u.unit.Restart.Tries()
	if err != nil {
		panic("internal error: a unit was not checked: " + err.Error())
	}
	if count > 0 {
		u.ends = append(u.ends, now)
		for len(u.ends) > 0 && now.Sub(u.ends[0]) > within {
			u.ends = u.ends[1:]
		}
		if len(u.ends) >= count {
			u.enter(Failed, fmt.Sprintf("%s; given up after %d ends within %s", how, count, within))
			return
		}
	}
	delay := min(duration(u.unit.Restart.Delay)<<min(u.consecutive, maxBackoffShift), longest)
	// Jitter only shortens, so that the cap is one.
	delay -= time.Duration(u.m.jitter() * 0.25 * float64(delay))
	u.consecutive++
	u.restarts++
	u.enter(Backoff, how)
	u.arm(delay)
}

// timeout: the timer of the state has run out.
func (u *machine) timeout() {
	switch u.state {
	case Starting:
		u.failure = "not ready within " + u.unit.Ready.Timeout
		u.enter(Killing, u.failure)
		u.arm(killTime)
		u.run.Kill()
	case Backoff:
		u.enter(Waiting, u.reason)
	case Stopping:
		u.enter(Killing, "did not end within "+u.unit.Shutdown.Timeout)
		u.arm(killTime)
		u.run.Kill()
	case Killing:
		u.enter(Failed, "its processes cannot be killed: the kernel holds them")
	case Stopped, Waiting, Blocked, Running, Done, Failed:
		u.m.internalError(u, "timeout")
	}
}

var signals = map[string]syscall.Signal{
	"TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "QUIT": syscall.SIGQUIT, "HUP": syscall.SIGHUP,
	"USR1": syscall.SIGUSR1, "USR2": syscall.SIGUSR2, "KILL": syscall.SIGKILL,
}

// duration reads a text that the hcl package has checked.
func duration(text string) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil {
		panic("internal error: a unit was not checked: " + err.Error())
	}
	return d
}

package unit

import (
	"fmt"
	"syscall"
	"time"

	"github.com/waltos/waltos/hcl"
)

// State is where a unit is in its life.
type State string

// The states of a unit. What each one waits for, and hence how it is left, is written
// beside it; TestEveryStateHasAnExit checks it.
const (
	Stopped   State = "stopped"   // for Start
	Waiting   State = "waiting"   // for a change of a unit it depends on
	Blocked   State = "blocked"   // for a needed unit, which has failed or is stopped, to run
	Scheduled State = "scheduled" // for the timer of its next run
	Listening State = "listening" // for a connection, the end of its run
	Starting  State = "starting"  // for readiness, the end of its process, or the ready timer
	Running   State = "running"   // for the end of its process
	Reloading State = "reloading" // for the end of its process or its reload, or the reload timer
	Done      State = "done"      // for Stop; a oneshot that succeeded, a group, a service that may end
	Backoff   State = "backoff"   // for the restart timer
	Stopping  State = "stopping"  // for the end of its process or the stop timer
	Killing   State = "killing"   // for the end of its process or the kill timer
	Failed    State = "failed"    // for Start
)

// States lists all states.
var States = []State{
	Stopped, Waiting, Blocked, Scheduled, Listening, Starting, Running, Reloading, Done, Backoff, Stopping, Killing, Failed,
}

const (
	// killTime is how long a killed control group may take to vanish: only a process
	// that the kernel holds in uninterruptible sleep needs any.
	killTime = 10 * time.Second
	// ownReloadTime bounds a reload that nobody has asked for.
	ownReloadTime = 30 * time.Second
	// maxExtension is the most that a service gets at once by EXTEND_TIMEOUT_USEC.
	maxExtension = 10 * time.Minute
	// maxBackoffShift keeps the doubling of restart delays from overflowing.
	maxBackoffShift = 20
)

// definitionChanged is why a unit is restarted by a plan.
const definitionChanged = "its definition has changed"

// machine is one unit with its state. All fields belong to the manager's lock; the
// methods below are called with it held.
type machine struct {
	m    *Manager
	unit *hcl.Unit // its definition
	live *hcl.Unit // the definition that holds for the present run; older during a re-plan

	state  State
	since  time.Time
	reason string // why it is in this state, in words; may be empty
	status string // last sd_notify STATUS

	// wanted: somebody started it and nobody stopped it since. A running unit that is
	// not wanted waits for the units that depend on it to end, then it is stopped.
	wanted bool
	// called: the moment of a unit that is started on demand or by a timer has come.
	called bool
	// leaving is why an active unit will be ended as soon as what must go first has gone.
	leaving string
	// removed: no file defines it any more; once it is stopped it is forgotten.
	removed bool

	run         Run
	generation  int // of run; events of an older one are stale
	pid         int
	limit       alarm     // of the state
	deadline    time.Time // of limit
	task        Task      // of the run
	spontaneous bool      // the run has said that it ends by itself
	announced   bool      // the run has said that it reloads
	failure     string    // why the supervisor itself ended the run; counts as a failure

	pulse   alarm // the next probe of life, or the end of the watchdog's patience
	probing bool  // a probe has no result yet
	missed  int   // failed probes in a row

	restarts    int         // since boot
	consecutive int         // failures without a long run between them
	ends        []time.Time // failures within the give-up window

	launched, up time.Time // the present run: its start, its first readiness
	due          time.Time // next run of a periodic job
	began, ready time.Time // first start and first readiness, for the boot report
}

// alarm is a timer that a unit sets and ends; what an earlier setting would do is void.
type alarm struct {
	timer  Timer
	serial int
}

func (u *machine) set(a *alarm, d time.Duration, event func()) {
	a.end()
	serial := a.serial
	a.timer = u.m.clock.AfterFunc(d, func() {
		u.m.locked(func() {
			if a.serial == serial {
				a.end()
				event()
			}
		})
	})
}

func (a *alarm) end() {
	a.serial++
	if a.timer != nil {
		a.timer.Stop()
		a.timer = nil
	}
}

// enter is the only place where a state changes. It ends the timers of the old state.
func (u *machine) enter(state State, reason string) {
	u.limit.end()
	u.pulse.end()
	old, now := u.state, u.m.clock.Now()
	took := now.Sub(u.since)
	u.state, u.reason, u.since = state, reason, now
	u.announced = false
	switch state {
	case Starting:
		u.status, u.up = "", time.Time{}
		if u.began.IsZero() {
			u.began = now
		}
	case Running, Done, Scheduled, Listening:
		if u.ready.IsZero() {
			u.ready = now
		}
	case Stopped, Waiting, Failed, Backoff, Blocked:
		u.pid, u.status = 0, ""
	case Stopping, Killing, Reloading:
	}
	switch state {
	case Running:
		if u.up.IsZero() {
			u.up = now
		}
		u.watch()
	case Reloading, Done, Listening, Starting:
	default:
		u.leaving = ""
	}
	u.m.note(Change{Unit: u.unit.Name, Old: old, New: state, Reason: reason, Wanted: u.wanted, Time: now, Took: took})
}

// arm starts the timer of the state just entered.
func (u *machine) arm(d time.Duration) {
	u.deadline = u.m.clock.Now().Add(d)
	u.set(&u.limit, d, u.timeout)
}

// launch starts a run. Events of an older one have no effect from now on.
func (u *machine) launch(task Task) {
	u.generation++
	generation := u.generation
	u.failure, u.spontaneous, u.task = "", false, task
	u.run = u.m.launcher.Launch(u.live, task, func(e Event) {
		u.m.locked(func() {
			if u.generation == generation {
				u.event(e)
			}
		})
	})
}

// event is what the present run reports.
func (u *machine) event(e Event) {
	switch e.Kind {
	case Started:
		u.pid = e.PID
	case Status:
		u.status = e.Text
	case Ready:
		u.isReady()
	case Reloads:
		u.reloads()
	case Reloaded:
		u.reloaded(e.OK, e.Text)
	case Stops:
		u.stops()
	case Extends:
		u.extends(e.Time)
	case Lives:
		u.lives()
	case Hangs:
		u.hangs()
	case Probed:
		u.probed(e.OK, e.Text)
	case Exited:
		u.exited(e)
	}
}

// start wants the unit; called: also if it is waiting for its time or a connection.
func (u *machine) start(called bool) {
	if !u.wanted {
		u.wanted, u.leaving = true, ""
	}
	u.called = u.called || called
	switch u.state {
	case Stopped, Failed, Blocked, Backoff:
		if u.killAgain() {
			return
		}
		u.consecutive, u.ends = 0, nil
		u.enter(Waiting, "")
	case Scheduled:
		if u.called {
			u.enter(Waiting, "")
		}
	case Waiting, Listening, Starting, Running, Reloading, Done:
		// One on demand that listens, or is about to, is started by settle.
	case Stopping, Killing:
		// It starts again once it has ended.
		u.failure, u.spontaneous = "", false
		u.consecutive, u.ends = 0, nil
	}
}

// stop no longer wants the unit. What runs is ended by settle, once no unit that
// depends on it is left.
func (u *machine) stop() {
	u.wanted, u.called = false, false
	switch u.state {
	case Waiting, Blocked, Scheduled, Backoff, Failed:
		if u.killAgain() {
			return
		}
		u.rest("stopped by request")
	case Stopped, Listening, Starting, Running, Reloading, Done, Stopping, Killing:
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
func (u *machine) startTree(called bool) {
	u.start(called)
	for _, name := range u.unit.Pulled() {
		if other := u.m.units[name]; !other.wanted {
			other.startTree(false)
		}
	}
}

// restart ends the process and starts it again; sockets and stored descriptors stay.
func (u *machine) restart(reason string) {
	switch u.state {
	case Stopped, Failed, Blocked, Backoff, Scheduled:
		u.startTree(true)
	case Starting, Running, Reloading, Done:
		u.wanted, u.called = true, true
		u.consecutive, u.ends = 0, nil
		u.leaving = reason
	case Waiting, Listening, Stopping, Killing:
		u.start(true)
	}
}

// reload makes a running service read its configuration again.
func (u *machine) reload() {
	switch u.state {
	case Running:
		how := u.live.Reload
		u.enter(Reloading, "reloaded by request")
		u.arm(duration(how.Timeout))
		u.run.Reload(signals[how.Signal], how.Exec, duration(how.Timeout))
	case Stopped, Waiting, Blocked, Scheduled, Listening, Starting, Reloading, Done, Backoff, Stopping, Killing, Failed:
		u.m.internalError(u, "reload")
	}
}

// redefine gives the unit another definition. One that needs a restart holds from the next
// run on, which settle brings about.
func (u *machine) redefine(unit *hcl.Unit, restart bool) {
	current := u.live == u.unit
	u.unit = unit
	if current && !restart {
		u.live = unit
		u.m.launcher.Update(unit)
	}
	switch u.state {
	case Stopped, Waiting, Stopping, Killing:
		// The definition of its next run.
	case Blocked, Failed, Backoff:
		if restart && u.wanted {
			u.start(false)
		}
	case Scheduled:
		if unit.Timer == nil {
			u.enter(Waiting, "")
			return
		}
		u.schedule(u.reason)
	case Running:
		u.watch()
	case Listening, Starting, Reloading, Done:
	}
}

// settle does what the states of other units allow now, and reports whether it did
// anything.
func (u *machine) settle() bool {
	switch u.state {
	case Waiting, Blocked:
		return u.tryStart()
	case Listening, Starting, Running, Reloading, Done:
		was := u.leaving
		if u.leaving == "" {
			u.leaving = u.reasonToEnd()
		}
		if u.leaving == "" || u.m.held(u) {
			return u.leaving != was
		}
		u.end(u.leaving)
		return true
	case Stopped, Scheduled, Backoff, Stopping, Killing, Failed:
	}
	return false
}

// reasonToEnd returns why an active unit cannot stay; empty if it can.
func (u *machine) reasonToEnd() string {
	switch {
	case u.removed:
		return "no file defines it any more"
	case !u.wanted:
		return "stopped by request"
	case u.state == Listening && u.called:
		return "started by request"
	case u.live != u.unit, u.state == Listening && !u.unit.OnDemand, u.state == Done && (u.unit.OnDemand || u.unit.Timer != nil):
		return definitionChanged
	case u.listens():
		return "" // nothing of it runs yet
	}
	for _, name := range u.unit.Binds {
		if other := u.m.units[name]; !other.isUp() || other.leaving != "" {
			return fmt.Sprintf("it is bound to %s, which is %s", name, other.heading())
		}
	}
	for _, name := range u.unit.Needs {
		if other := u.m.units[name]; other.state == Failed || other.state == Blocked {
			return fmt.Sprintf("it needs %s, which is %s", name, other.state)
		}
	}
	return ""
}

// listens: the run holds the sockets of a unit on demand, and nothing else.
func (u *machine) listens() bool { return u.run != nil && u.task == Listen }

// heading says where the unit is or is about to go.
func (u *machine) heading() State {
	if u.leaving != "" {
		return Stopping
	}
	return u.state
}

// tryStart starts the unit as far as its time and its dependencies allow.
func (u *machine) tryStart() bool {
	if !u.called && u.unit.Timer != nil {
		u.schedule("")
		return true
	}
	if !u.called && u.unit.OnDemand {
		u.live = u.unit
		u.enter(Starting, u.reason)
		u.arm(duration(u.live.Ready.Timeout))
		u.launch(Listen)
		return true
	}
	for _, name := range u.unit.Required() {
		switch other := u.m.units[name]; {
		case other.isUp() && other.leaving == "":
		case other.state == Failed || other.state == Blocked || other.state == Stopped:
			if u.state != Blocked {
				u.enter(Blocked, fmt.Sprintf("it needs %s, which is %s", name, other.state))
				return true
			}
			return false
		default:
			return false
		}
	}
	for _, names := range [][]string{u.unit.Wants, u.unit.After} {
		for _, name := range names {
			if other := u.m.units[name]; other.wanted && !other.settled() {
				return false
			}
		}
	}
	u.live = u.unit
	if u.unit.Type == "group" {
		u.enter(Done, "")
		return true
	}
	u.launched = u.m.clock.Now()
	u.enter(Starting, "")
	u.arm(duration(u.live.Ready.Timeout))
	u.launch(Main)
	return true
}

// schedule waits for the time of the next run of a periodic job.
func (u *machine) schedule(reason string) {
	now, t := u.m.clock.Now(), u.unit.Timer
	u.called = false
	u.enter(Scheduled, reason)
	u.due = next(t, u.m.booted, u.launched, now).Add(time.Duration(u.m.jitter() * float64(duration(t.Jitter))))
	u.arm(min(u.due.Sub(now), longestNap))
}

// settled: the unit has had a result, good or bad, and whoever only wants it may go on.
func (u *machine) settled() bool {
	switch u.state {
	case Scheduled, Listening, Running, Reloading, Done, Failed, Blocked, Backoff:
		return true
	case Stopped, Waiting, Starting, Stopping, Killing:
		return false
	}
	panic("internal error: unit " + u.unit.Name + " is in the unknown state " + string(u.state))
}

// isUp: what needs the unit may run.
func (u *machine) isUp() bool {
	switch u.state {
	case Scheduled, Listening, Running, Reloading, Done:
		return true
	case Stopped, Waiting, Blocked, Starting, Backoff, Stopping, Killing, Failed:
		return false
	}
	panic("internal error: unit " + u.unit.Name + " is in the unknown state " + string(u.state))
}

// active: something of the unit is there that a unit below it must outlive.
func (u *machine) active() bool {
	switch u.state {
	case Listening, Starting, Running, Reloading, Done, Stopping, Killing:
		return true
	case Stopped, Waiting, Blocked, Scheduled, Backoff, Failed:
		return false
	}
	panic("internal error: unit " + u.unit.Name + " is in the unknown state " + string(u.state))
}

// end begins the end of an active unit.
func (u *machine) end(reason string) {
	switch u.state {
	case Listening, Starting, Running, Reloading:
		u.enter(Stopping, reason)
		u.arm(duration(u.live.Shutdown.Timeout))
		u.run.Signal(signals[u.live.Shutdown.Signal])
	case Done:
		if len(u.live.Stop) == 0 {
			u.rest(reason)
			return
		}
		u.undo(reason)
	case Stopped, Waiting, Blocked, Scheduled, Backoff, Failed, Stopping, Killing:
	}
}

// undo runs the stop command.
func (u *machine) undo(reason string) {
	u.enter(Stopping, reason)
	u.arm(duration(u.live.Shutdown.Timeout))
	u.launch(Undo)
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
		switch {
		case u.task == Listen:
			u.enter(Listening, u.reason)
		case u.live.Type != "oneshot":
			u.enter(Running, "")
		}
	case Reloading:
		u.enter(Running, "")
	case Stopped, Waiting, Blocked, Scheduled, Listening, Running, Done, Backoff, Stopping, Killing, Failed:
		// Readiness said twice, or too late to matter.
	}
}

// reloads: the process says that it has begun to reload, asked or not.
func (u *machine) reloads() {
	switch u.state {
	case Running:
		limit := ownReloadTime
		if u.live.Reload != nil {
			limit = duration(u.live.Reload.Timeout)
		}
		u.enter(Reloading, "")
		u.arm(limit)
		u.announced = true
	case Reloading:
		u.announced = true
	case Stopped, Waiting, Blocked, Scheduled, Listening, Starting, Done, Backoff, Stopping, Killing, Failed:
	}
}

// reloaded: the signal or command of a reload is done. If the process has said that it
// reloads, it will also say when it is ready.
func (u *machine) reloaded(ok bool, how string) {
	switch u.state {
	case Reloading:
		if !ok {
			u.enter(Running, "the reload failed: "+how)
		} else if !u.announced {
			u.enter(Running, "")
		}
	case Stopped, Waiting, Blocked, Scheduled, Listening, Starting, Running, Done, Backoff, Stopping, Killing, Failed:
	}
}

// stops: the process says that it ends by itself.
func (u *machine) stops() {
	switch u.state {
	case Starting, Running, Reloading:
		u.enter(Stopping, "it is ending by itself")
		u.arm(duration(u.live.Shutdown.Timeout))
		u.spontaneous = true
	case Stopped, Waiting, Blocked, Scheduled, Listening, Done, Backoff, Stopping, Killing, Failed:
	}
}

// extends: the process wants to take that long from now on.
func (u *machine) extends(d time.Duration) {
	switch u.state {
	case Starting, Reloading, Stopping:
		d = min(d, maxExtension)
		if u.m.clock.Now().Add(d).After(u.deadline) {
			u.arm(d)
		}
	case Stopped, Waiting, Blocked, Scheduled, Listening, Running, Done, Backoff, Killing, Failed:
	}
}

// watch begins to wait for proofs of life.
func (u *machine) watch() {
	u.probing, u.missed = false, 0
	u.pulse.end()
	if u.live.Alive != nil {
		u.set(&u.pulse, duration(u.live.Alive.Period), u.beat)
	}
}

// beat: a period of the proof of life is over.
func (u *machine) beat() {
	a := u.live.Alive
	switch {
	case a.Notify:
		u.notAlive("no sign of life within " + a.Period)
		return
	case u.probing:
		u.miss("no answer")
	default:
		u.probing = true
		u.run.Probe(a.Probe(), duration(a.Timeout))
	}
	if u.state == Running {
		u.set(&u.pulse, duration(a.Period), u.beat)
	}
}

// probed: a probe has its result.
func (u *machine) probed(ok bool, how string) {
	if u.state != Running || !u.probing {
		return // of an earlier stay in this state
	}
	u.probing = false
	if ok {
		u.missed = 0
		return
	}
	u.miss(how)
}

func (u *machine) miss(how string) {
	u.missed++
	if threshold := u.live.Alive.Threshold; u.missed >= threshold {
		u.notAlive(fmt.Sprintf("%d probes of life in a row failed: %s", u.missed, how))
	}
}

// lives: the process gives a sign of life.
func (u *machine) lives() {
	if a := u.live.Alive; u.state == Running && a != nil && a.Notify {
		u.set(&u.pulse, duration(a.Period), u.beat)
	}
}

// hangs: the process itself finds that it must be restarted.
func (u *machine) hangs() {
	if a := u.live.Alive; u.state == Running && a != nil && a.Notify {
		u.notAlive("it has asked for a restart")
	}
}

// notAlive ends a running process that is no longer of use.
func (u *machine) notAlive(reason string) {
	signal := signals[u.live.Alive.Signal]
	u.failure = reason
	u.enter(Stopping, reason)
	u.arm(duration(u.live.Shutdown.Timeout))
	u.run.Signal(signal)
}

// exited: nothing of the run is left.
func (u *machine) exited(e Event) {
	u.run, u.pid = nil, 0
	switch u.state {
	case Listening:
		if !e.OK || !u.wanted || u.leaving != "" {
			u.ended(false, e.Text)
			return
		}
		u.called = true
		u.enter(Waiting, "a peer has connected")
	case Starting, Running, Reloading:
		if e.Skipped {
			u.finished(e.Text, duration(u.unit.Restart.Max))
			return
		}
		u.ended(e.OK, e.Text)
	case Stopping, Killing:
		switch {
		case u.failure != "":
			u.ended(false, u.failure)
		case u.spontaneous:
			u.ended(e.OK, e.Text)
		case u.task == Undo && !e.OK:
			u.rest("its stop command failed: " + e.Text)
		case u.task == Main && !u.wanted && u.live.Outlived() && len(u.live.Stop) > 0:
			u.undo(u.reason)
		default:
			u.rest(u.reason)
		}
	case Failed:
		// It was declared unkillable and has died after all.
		u.reason = e.Text
		if !u.wanted {
			u.rest(e.Text)
		}
	case Stopped, Waiting, Blocked, Scheduled, Done, Backoff:
		u.m.internalError(u, "exited")
	}
}

// ended is the end of a process that nobody asked for.
func (u *machine) ended(ok bool, how string) {
	oneshot := u.live.Type == "oneshot"
	switch policy := u.unit.Restart.Policy; {
	case ok && oneshot && len(u.live.Stop) > 0:
		u.enter(Done, "") // and from there it is undone, if nobody wants it any more
		return
	case !u.wanted:
		u.rest(how)
		return
	case u.leaving != "":
		u.rest(u.leaving)
		return
	case u.live != u.unit:
		u.rest(definitionChanged)
		return
	case ok && oneshot:
		u.finished("", 0)
		return
	case ok && (policy != "always" || u.unit.OnDemand):
		u.finished(how, duration(u.unit.Restart.Delay))
		return
	case policy == "never":
		u.fails(how)
		return
	}
	now := u.m.clock.Now()
	longest := duration(u.unit.Restart.Max)
	if !u.up.IsZero() && now.Sub(u.up) > longest {
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
			u.fails(fmt.Sprintf("%s; given up after %d ends within %s", how, count, within))
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

// finished is the good end of what may end. A service on demand pauses before it waits for
// the next connection: the last one may still be there.
func (u *machine) finished(how string, pause time.Duration) {
	switch {
	case !u.wanted:
		u.rest(how)
	case u.unit.Timer != nil:
		u.consecutive, u.ends = 0, nil
		u.schedule(how)
	case u.unit.OnDemand:
		u.called = false
		u.enter(Backoff, how)
		u.arm(pause)
	default:
		u.enter(Done, how)
	}
}

// fails is the end of all attempts; a periodic job has its next run all the same.
func (u *machine) fails(how string) {
	if u.unit.Timer != nil {
		u.consecutive, u.ends = 0, nil
		u.schedule("the last run failed: " + how)
		return
	}
	u.called = false
	u.enter(Failed, how)
}

// timeout: the timer of the state has run out.
func (u *machine) timeout() {
	switch u.state {
	case Scheduled:
		if now := u.m.clock.Now(); now.Before(u.due) {
			u.arm(min(u.due.Sub(now), longestNap))
			return
		}
		u.called = true
		u.enter(Waiting, "")
	case Starting:
		u.failure = "not ready within " + u.live.Ready.Timeout
		u.enter(Killing, u.failure)
		u.arm(killTime)
		u.run.Kill()
	case Reloading:
		u.enter(Running, "its reload has not ended in time")
	case Backoff:
		u.enter(Waiting, u.reason)
	case Stopping:
		u.enter(Killing, "did not end within "+u.live.Shutdown.Timeout)
		u.arm(killTime)
		u.run.Kill()
	case Killing:
		u.enter(Failed, "its processes cannot be killed: the kernel holds them")
	case Stopped, Waiting, Blocked, Listening, Running, Done, Failed:
		u.m.internalError(u, "timeout")
	}
}

var signals = map[string]syscall.Signal{
	"TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "QUIT": syscall.SIGQUIT, "HUP": syscall.SIGHUP,
	"USR1": syscall.SIGUSR1, "USR2": syscall.SIGUSR2, "ABRT": syscall.SIGABRT, "KILL": syscall.SIGKILL,
}

// duration reads a text that the hcl package has checked.
func duration(text string) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil {
		panic("internal error: a unit was not checked: " + err.Error())
	}
	return d
}

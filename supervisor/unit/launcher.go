package unit

import (
	"syscall"
	"time"

	"github.com/waltos/waltos/hcl"
)

// Launcher runs the processes of units. Its methods are called with the manager's lock
// held: they return at once and never call back from the same goroutine.
type Launcher interface {
	// Launch starts one run of a unit. What happens is told to report; the last event,
	// always sent, is Exited.
	Launch(u *hcl.Unit, task Task, report func(Event)) Run
	// Update applies what has changed of a definition without a restart.
	Update(u *hcl.Unit)
	// Release closes the sockets that were kept for the unit, and ends what of it is left:
	// it is stopped, not just restarted.
	Release(u *hcl.Unit)
	// Forget drops all that was kept for the unit, which no longer exists.
	Forget(u *hcl.Unit)
	// LastRun returns when a persistent periodic job was last launched, in any boot.
	LastRun(u *hcl.Unit) time.Time
}

// Task is what a run is for.
type Task int

const (
	Main   Task = iota // the commands of the unit
	Undo               // the stop command
	Listen             // opening its sockets (Ready), waiting for a connection (Exited, OK)
)

// Run is a launched unit.
type Run interface {
	Signal(syscall.Signal) // to the main process
	Kill()                 // everything that the unit started, or what its definition says
	// Probe tries whether the unit is alive, and reports Probed within the time limit.
	Probe(what hcl.Probe, limit time.Duration)
	// Reload runs the command within the time limit or, if there is none, sends the signal
	// to the main process, and reports Reloaded.
	Reload(signal syscall.Signal, command []string, limit time.Duration)
}

// Event is what a Run reports.
type Event struct {
	Kind    EventKind
	PID     int           // Started
	OK      bool          // Exited: status 0; Probed, Reloaded: success
	Skipped bool          // Exited: nothing was run, a condition does not hold
	Text    string        // Status: the text; Exited, Probed, Reloaded: how, in words
	Time    time.Duration // Extends
}

// EventKind tells what an Event means.
type EventKind int

const (
	Started  EventKind = iota // the main process exists
	Ready                     // it does its work
	Status                    // it has something to say
	Reloads                   // it has begun to read its configuration again
	Reloaded                  // the reload that was asked for has been passed on
	Stops                     // it has begun to end by itself
	Extends                   // it wants more time for what it is doing
	Lives                     // it gives a sign of life (watchdog)
	Hangs                     // it asks to be restarted (watchdog)
	Probed                    // a probe of life has a result
	Exited                    // nothing of it is left
)

// Clock is the time that the manager lives in.
type Clock interface {
	Now() time.Time
	AfterFunc(time.Duration, func()) Timer
}

// Timer is a pending AfterFunc.
type Timer interface{ Stop() bool }

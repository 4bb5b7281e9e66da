// Package control is the door of the supervisor: HTTP with JSON on a unix socket, for
// waltctl and for whoever else is on the machine.
//
//	curl --unix-socket /run/walt/control.sock http://walt/
//
// prints the list of requests, which is made from [Endpoints]. Every path begins with
// "/v1": members are added to answers within a version, never removed or changed.
//
//   - Who asks is told by the kernel (SO_PEERCRED): root may do everything; others may look
//     at what tells no secrets, and get status 403 for the rest.
//   - An answer is one JSON object. Where the list says "stream" it is a JSON object a line,
//     as things happen, until the client goes or what was waited for has come.
//   - A refusal has status 4xx or 5xx and the object {"error": "cannot …"}.
//   - Durations are nanoseconds, times RFC 3339, sizes bytes.
//
// Refused: bodies over 1 MiB, headers over 8 KiB, more than 16 connections of those who
// are not root.
package control

import (
	"time"

	"github.com/waltos/waltos/supervisor/cgroup"
	"github.com/waltos/waltos/supervisor/journal"
	"github.com/waltos/waltos/supervisor/report"
	"github.com/waltos/waltos/supervisor/secureboot"
	"github.com/waltos/waltos/supervisor/unit"
	"github.com/waltos/waltos/supervisor/watchdog"
)

// Path is where the supervisor listens.
const Path = "/run/walt/control.sock"

// Status is the whole machine at a moment.
type Status struct {
	Name    string `json:"name"`    // host name
	Version string `json:"version"` // of the appliance
	Slot    string `json:"slot"`    // partition of the root that is running
	// SecureBoot is "enabled", "disabled", "setup mode" or "not EFI"; absent if the firmware does
	// not tell.
	SecureBoot    secureboot.State `json:"secure_boot,omitempty"`
	Configuration string           `json:"configuration"` // where the effective one is from
	Refused       string           `json:"refused,omitempty"`
	State         string           `json:"state"` // "starting", "ready", "degraded"
	Uptime        time.Duration    `json:"uptime"`
	Clock         Clock            `json:"clock"`
	Data          Space            `json:"data"`
	Watchdog      watchdog.Status  `json:"watchdog"`
	Units         []Unit           `json:"units"`
}

// Clock is the time of the machine.
type Clock struct {
	Now          time.Time `json:"now"`
	Synchronised bool      `json:"synchronised"` // with a server of time, as the kernel was told
}

// Space is the room of the data partition, in bytes.
type Space struct {
	Size int64 `json:"size"`
	Free int64 `json:"free"`
}

// Reserve is how much must be free for services to store anything with confidence: a
// hundredth, 64 MiB at most.
func (s Space) Reserve() int64 { return min(s.Size/100, 64<<20) }

// Full tells whether the reserve is used up.
func (s Space) Full() bool { return s.Size > 0 && s.Free < s.Reserve() }

// Unit is one unit at a moment.
type Unit struct {
	Name        string     `json:"name"`
	Description string     `json:"description,omitempty"`
	Type        string     `json:"type"`
	State       unit.State `json:"state"`
	Wanted      bool       `json:"wanted"`
	Since       time.Time  `json:"since"`
	PID         int        `json:"pid,omitempty"`
	Restarts    int        `json:"restarts"`
	Memory      int64      `json:"memory,omitempty"` // bytes
	Stored      int        `json:"stored,omitempty"` // descriptors
	Reason      string     `json:"reason,omitempty"`
	Status      string     `json:"status,omitempty"` // in the unit's own words
	Next        time.Time  `json:"next,omitzero"`    // scheduled: the next run
}

// Good tells whether the unit is as it should be.
func (u Unit) Good() bool {
	switch u.State {
	case unit.Scheduled, unit.Listening, unit.Running, unit.Reloading, unit.Done:
		return true
	}
	return !u.Wanted
}

// Detail is all that is known of one unit.
type Detail struct {
	Unit
	Dependencies Node             `json:"dependencies"`
	Usage        cgroup.Usage     `json:"usage"`
	Events       []Event          `json:"events,omitempty"` // the last ones
	Log          []journal.Record `json:"log,omitempty"`    // the last lines; for root only
}

// Node is one unit of the graph of dependencies.
type Node struct {
	Name  string   `json:"name"`
	Type  string   `json:"type"`
	Needs []string `json:"needs,omitempty"`
	Wants []string `json:"wants,omitempty"`
	After []string `json:"after,omitempty"`
	Binds []string `json:"binds,omitempty"`
}

// Event is one change of the state of a unit.
type Event struct {
	Number uint64        `json:"number"` // grows by one since boot
	Time   time.Time     `json:"time"`
	Unit   string        `json:"unit"`
	From   unit.State    `json:"from"`
	To     unit.State    `json:"to"`
	Reason string        `json:"reason,omitempty"`
	Took   time.Duration `json:"took"` // in the state that it left
}

// Step is what the stream of an order consists of: events, then the result.
type Step struct {
	Event *Event `json:"event,omitempty"`
	Unit  *Unit  `json:"unit,omitempty"`  // what became of it; the last step
	Error string `json:"error,omitempty"` // likewise
}

// Boot is the report of the present boot.
type Boot = report.Boot

// Follow is the first line of a stream of the journal; the others are journal.Record.
type Follow struct {
	First uint64 `json:"first"` // number of the first record that will come
}

// Configured tells what a new site file has done.
type Configured struct {
	Done string `json:"done"`
}

// Failure is the body of a refusal.
type Failure struct {
	Error string `json:"error"`
}

// Package watchdog has the hardware reset a machine that does not do what it is for: the
// device is fed only while the health goal holds, and while PID 1 is able to look at it.
//
// The states of a guard, and what leads on:
//
//	absent    no device is there                     it appears: armed
//	off       disabled by the configuration          enabled: absent
//	suspended by an administrator, until the reboot  resumed: absent
//	armed     the goal holds, the device is fed      it fails: grace
//	grace     it fails, the device is fed still      it holds: armed; too long: starving
//	starving  the device is not fed                  it holds: armed; else the reset
//	ending    the machine is to end: the goal does not count, the device is fed until released
//
// Grace is for restarts and for the boot itself. A slot on trial that never becomes healthy
// is so left behind by a reset.
package watchdog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"
)

// State is one of a guard.
type State string

// States, see the package comment.
const (
	Absent    State = "absent"
	Off       State = "off"
	Suspended State = "suspended"
	Armed     State = "armed"
	Grace     State = "grace"
	Starving  State = "starving"
	Ending    State = "ending"
)

// Settings are what the configuration says.
type Settings struct {
	Enabled bool
	Timeout time.Duration // of the device
	Grace   time.Duration // how long the goal may fail
}

// Status is what people see.
type Status struct {
	State   State         `json:"state"`
	Device  string        `json:"device,omitempty"`
	Timeout time.Duration `json:"timeout,omitempty"`
	Why     string        `json:"why,omitempty"`     // what is missing for the goal
	Left    time.Duration `json:"left,omitempty"`    // of the grace
	Trouble string        `json:"trouble,omitempty"` // with the device
}

// Config is what a Guard is made of.
type Config struct {
	Open func(timeout time.Duration) (Device, error)
	// Goal tells what is missing; empty: it holds. A Goal that hangs is a failure too: the
	// device is not fed then.
	Goal func() string
	Say  func(format string, args ...any)
}

// Guard decides when the watchdog is fed.
type Guard struct {
	config Config

	mu       sync.Mutex
	settings Settings
	state    State
	device   Device
	failing  time.Time // since when the goal fails; zero: it holds
	end      time.Time // ending: fed until then
	why      string
	trouble  string
	now      time.Time // of the last look
}

// New makes a guard that is off until it is configured.
func New(config Config) *Guard { return &Guard{config: config, state: Off} }

// slowest is how long between two looks at most, quickest at least.
const (
	slowest  = 10 * time.Second
	quickest = 500 * time.Millisecond
)

// Period is how often to look: several times within the time of the device.
func (g *Guard) Period() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	timeout := g.settings.Timeout
	if g.device != nil {
		timeout = min(timeout, g.device.Timeout())
	}
	return max(min(timeout/4, slowest), quickest)
}

// Run looks until the context ends.
func (g *Guard) Run(ctx context.Context) {
	for {
		g.Look(time.Now())
		timer := time.NewTimer(g.Period())
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// Look asks for the goal and feeds the device, or not.
func (g *Guard) Look(now time.Time) {
	why := g.config.Goal() // without lock: it may hang
	g.mu.Lock()
	defer g.mu.Unlock()
	g.now = now
	switch g.state {
	case Off, Suspended:
		return
	case Absent:
		g.open()
	case Ending:
		if now.Before(g.end) {
			g.feed()
		}
		return
	case Armed, Grace, Starving:
	}
	if g.device == nil {
		return
	}
	g.why = why
	switch {
	case why == "":
		if g.state == Starving {
			g.config.Say("watchdog: the health goal holds again")
		}
		g.failing, g.state = time.Time{}, Armed
	case g.failing.IsZero():
		g.failing, g.state = now, Grace
	case now.Sub(g.failing) >= g.settings.Grace:
		if g.state != Starving {
			g.state = Starving
			g.config.Say("watchdog: the machine is reset within %v, because for %v: %s; `waltctl watchdog off` prevents that",
				g.device.Timeout(), now.Sub(g.failing).Round(time.Second), why)
		}
		return
	}
	g.feed()
}

// open takes the device that is there, if any.
func (g *Guard) open() {
	device, err := g.config.Open(g.settings.Timeout)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			g.note(err)
		}
		return
	}
	g.device, g.state, g.trouble = device, Armed, ""
	g.config.Say("watchdog: %s, %v", device.Name(), device.Timeout())
}

func (g *Guard) feed() {
	if g.device == nil {
		return
	}
	if err := g.device.Feed(); err != nil {
		g.note(err)
	}
}

// note says a trouble once.
func (g *Guard) note(err error) {
	if g.trouble != err.Error() {
		g.trouble = err.Error()
		g.config.Say("watchdog: %v", err)
	}
}

// disarm lets go of the device.
func (g *Guard) disarm(next State) {
	if g.device != nil {
		if err := g.device.Disarm(); err != nil {
			g.note(err)
		}
	}
	g.device, g.state, g.why, g.failing = nil, next, "", time.Time{}
}

// Configure puts settings in effect.
func (g *Guard) Configure(settings Settings) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.settings == settings {
		return
	}
	renew := g.settings.Timeout != settings.Timeout || g.settings.Enabled != settings.Enabled
	g.settings = settings
	switch {
	case g.state == Ending || g.state == Suspended || !renew:
	case settings.Enabled:
		g.disarm(Absent)
	default:
		g.disarm(Off)
	}
}

// Suspend ends the countdown until Resume or the next boot.
func (g *Guard) Suspend() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.state == Ending {
		return errors.New("cannot suspend the watchdog: the machine is ending")
	}
	g.disarm(Suspended)
	g.config.Say("watchdog: suspended by request")
	return nil
}

// Resume ends a Suspend.
func (g *Guard) Resume() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.state != Suspended:
		return nil
	case !g.settings.Enabled:
		return errors.New("cannot resume the watchdog: the site file disables it")
	}
	g.state = Absent
	g.open()
	switch {
	case g.device != nil:
		return nil
	case g.trouble != "":
		return fmt.Errorf("cannot resume the watchdog: %s", g.trouble)
	}
	return errors.New("cannot resume the watchdog: this machine has none; one that appears will be used")
}

// End is called when the machine begins to end: the units stop, and the device is fed for
// that long.
func (g *Guard) End(now time.Time, limit time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.state, g.end, g.why = Ending, now.Add(limit), ""
	g.feed()
}

// Release ends the countdown for good: the machine is about to be off.
func (g *Guard) Release() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.disarm(Ending)
}

// Status tells how things are.
func (g *Guard) Status() Status {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := Status{State: g.state, Why: g.why, Trouble: g.trouble}
	if g.device != nil {
		s.Device, s.Timeout = g.device.Name(), g.device.Timeout()
	}
	if g.state == Grace {
		s.Left = max(0, g.settings.Grace-g.now.Sub(g.failing))
	}
	return s
}

package system

import (
	"time"

	"github.com/waltos/waltos/supervisor/health"
	"github.com/waltos/waltos/supervisor/watchdog"
)

// finder finds the watchdog of the machine.
var finder = watchdog.Finder{Class: "/sys/class/watchdog", Dev: "/dev"}

// endTime bounds the end of the machine: what end does, and a reserve.
const endTime = stopTime + 60*time.Second

func (s *system) newGuard() *watchdog.Guard {
	return watchdog.New(watchdog.Config{Open: finder.Open, Goal: s.missing, Say: s.console.Say})
}

// missing is what keeps the health goal from holding. It takes the locks that everything in
// PID 1 takes: when these are stuck, the watchdog starves.
func (s *system) missing() string {
	s.mu.Lock()
	goal := s.site.Site.Watchdog.Goal
	s.mu.Unlock()
	return health.Missing(s.manager.Snapshot(), goal, time.Now())
}

// setWatchdog puts what the site file says in effect.
func (s *system) setWatchdog() {
	w := s.site.Site.Watchdog
	timeout, grace := w.Times()
	s.watchdog.Configure(watchdog.Settings{Enabled: *w.Enabled, Timeout: timeout, Grace: grace})
}

// substituteWatchdog gives a machine without a watchdog the one of the kernel.
func (s *system) substituteWatchdog() {
	if s.watchdog.Status().State == watchdog.Absent && !finder.Any() {
		s.runDrivers([]string{"softdog"})
	}
}

// Watchdog implements control.Machine.
func (s *system) Watchdog(order string) (watchdog.Status, error) {
	do := s.watchdog.Resume
	if order == "off" {
		do = s.watchdog.Suspend
	}
	err := do()
	return s.watchdog.Status(), err
}

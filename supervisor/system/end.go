package system

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// end stops everything and switches off or reboots. Each part of it is bounded in time:
// an order to end is obeyed.
func (s *system) end(what string) {
	s.mu.Lock()
	s.ending = true
	s.mu.Unlock()
	began := time.Now()
	s.watchdog.End(began, endTime)
	s.console.Say("%s: stopping units", what)
	select {
	case <-s.manager.StopAll():
		s.console.Say("all units are stopped after %.1f s", time.Since(began).Seconds())
	case <-time.After(stopTime):
		var left []string
		for _, u := range s.manager.Snapshot() {
			if u.Active {
				left = append(left, u.Name)
			}
		}
		s.console.Say("some units are not stopped after %v: %s; going on", stopTime, strings.Join(left, ", "))
	}
	if err := s.clock.Finish(); err != nil {
		s.console.Say("%v", err)
	}
	if err := s.journal.Close(); err != nil {
		s.console.Say("%v", err)
	}
	bounded(5*time.Second, s.killRest)
	bounded(20*time.Second, func() {
		unix.Sync()
		s.unmountAll()
		unix.Sync()
	})
	s.console.Say("%s: good bye", what)
	s.watchdog.Release()
	order := unix.LINUX_REBOOT_CMD_RESTART
	if what == "poweroff" {
		order = unix.LINUX_REBOOT_CMD_POWER_OFF
	}
	err := unix.Reboot(order)
	s.console.Alarm("cannot %s: %v; switch the machine off", what, err)
	select {}
}

func bounded(limit time.Duration, do func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		do()
	}()
	select {
	case <-done:
	case <-time.After(limit):
	}
}

// killRest ends what belongs to no unit, so that it holds no file open.
func (s *system) killRest() {
	_ = unix.Kill(-1, unix.SIGTERM)
	for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		s.reaper.Reap()
		if err := unix.Kill(-1, 0); errors.Is(err, unix.ESRCH) {
			return
		}
	}
	_ = unix.Kill(-1, unix.SIGKILL)
}

// unmountAll unmounts the data partition and what is mounted below it, innermost first. What
// is held nevertheless is made read-only, so that its file system is clean.
func (s *system) unmountAll() {
	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		s.console.Say("cannot list mounts: %v", err)
		return
	}
	var targets []string
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		target := unescapeMount(fields[1])
		if target == "/var" || strings.HasPrefix(target, "/var/") || strings.HasPrefix(target, "/run/") {
			targets = append(targets, target)
		}
	}
	for _, target := range slices.Backward(targets) {
		err := unix.Unmount(target, 0)
		if err == nil {
			continue
		}
		if target != "/var" {
			err = unix.Unmount(target, unix.MNT_DETACH)
		}
		if err != nil {
			remount := unix.Mount("", target, "", unix.MS_REMOUNT|unix.MS_RDONLY, "")
			s.console.Say("%v", errors.Join(fmt.Errorf("cannot unmount %s: %w", target, err), remount))
		}
	}
}

var mountEscapes = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

func unescapeMount(path string) string { return mountEscapes.Replace(path) }

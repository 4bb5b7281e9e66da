package process

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/waltos/waltos/hcl"
)

// Release closes the listening sockets of a stopped unit, so that its peers are refused
// instead of waiting, and ends what a unit of the manner "main" has left. Stored
// descriptors stay: stopping a service must not cut what its peers hold on to.
func (l *Launcher) Release(u *hcl.Unit) {
	k := l.keeper(u.Name)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closeSockets(func(keptSocket) bool { return true })
	if group := l.group(u.Name); group != nil && u.Outlived() {
		if err := group.Kill(); err != nil {
			l.config.Log(u.Name, err.Error())
		}
	}
}

// Update applies limits that have changed. The kernel may take its time to make a unit smaller.
func (l *Launcher) Update(u *hcl.Unit) {
	group := l.group(u.Name)
	if group == nil {
		return // nothing runs yet
	}
	go func() {
		if err := group.Limit(u.Limits, l.config.StateDir); err != nil {
			l.config.Log(u.Name, err.Error())
		}
	}()
}

// Forget drops what is kept for a unit that no longer exists.
func (l *Launcher) Forget(u *hcl.Unit) {
	k, group := l.keeper(u.Name), l.group(u.Name)
	l.mu.Lock()
	delete(l.kept, u.Name)
	delete(l.limit, u.Name)
	l.mu.Unlock()
	k.mu.Lock()
	k.closeSockets(func(keptSocket) bool { return true })
	for _, f := range k.store {
		f.file.Close()
	}
	k.store = nil
	k.mu.Unlock()
	if group != nil {
		// Refused while something is left in it; the next unit of this name may use it.
		_ = os.Remove(filepath.Join(l.config.CgroupRoot, u.Name))
	}
	_ = os.Remove(l.stamp(u))
}

// stamp is the file whose time is the last run of a persistent periodic job.
func (l *Launcher) stamp(u *hcl.Unit) string {
	return filepath.Join(l.config.StateDir, "walt", "timers", u.Name)
}

// LastRun implements unit.Launcher.
func (l *Launcher) LastRun(u *hcl.Unit) time.Time {
	info, err := os.Stat(l.stamp(u))
	if err != nil {
		return time.Time{} // it has never run
	}
	return info.ModTime()
}

// noteRun notes that a persistent periodic job runs now.
func (l *Launcher) noteRun(u *hcl.Unit) error {
	if u.Timer == nil || !u.Timer.Persistent {
		return nil
	}
	path := l.stamp(u)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("cannot note the run: %w", err)
	}
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("cannot note the run: %w", err)
	}
	now := time.Now()
	return errors.Join(f.Close(), os.Chtimes(path, now, now))
}

// unmet says which part of a condition does not hold; empty if all do.
func unmet(c *hcl.Condition) string {
	if c == nil {
		return ""
	}
	exists := func(path string) bool {
		_, err := os.Stat(path)
		return err == nil
	}
	if i := slices.IndexFunc(c.Exists, func(path string) bool { return !exists(path) }); i >= 0 {
		return "skipped: " + c.Exists[i] + " does not exist"
	}
	if i := slices.IndexFunc(c.Missing, exists); i >= 0 {
		return "skipped: " + c.Missing[i] + " exists"
	}
	return ""
}

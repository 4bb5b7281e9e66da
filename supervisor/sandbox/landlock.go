package sandbox

import (
	"errors"
	"fmt"
	"os"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// restrict has Landlock, as far as the kernel has it, keep the process from writing elsewhere
// than in its places, from signalling processes outside of the unit, and from their abstract
// sockets. It must not be called for those that mount: Landlock forbids that.
//
// To Landlock each run of a unit is another domain. Where processes outlive a run, the next
// one must be able to signal them; its user keeps it from those of other units then.
func (p *Plan) restrict() error {
	s := p.Sandbox
	var writable []string
	for _, place := range View(s, p.Own) {
		if place.Access == Writable {
			writable = append(writable, place.Path)
		}
	}
	if s.Root == "private" {
		writable = append(append(writable, "/dev"), temporary...)
	} else {
		if LandlockVersion() == 0 {
			return errors.New("cannot keep the unit from writing to the root of the machine: the kernel has no Landlock")
		}
		writable = append(append(writable, "/dev/ptmx", "/dev/pts", "/dev/shm", "/proc/self"), devices...)
	}
	rules := []landlock.Rule{landlock.RODirs("/")}
	for _, path := range writable {
		info, err := os.Stat(path)
		if err != nil {
			return fmt.Errorf("cannot let write %s: %w", path, err)
		}
		if info.IsDir() {
			rules = append(rules, landlock.RWDirs(path).WithRefer().WithIoctlDev())
		} else {
			rules = append(rules, landlock.RWFiles(path).WithIoctlDev())
		}
	}
	config := landlock.V6
	config.HandledAccessNet = 0 // sockets are left to network and families
	if p.Outlived {
		config.Scoped &^= ll.ScopeSignal
	}
	if err := config.BestEffort().Restrict(rules...); err != nil {
		return fmt.Errorf("cannot restrict the unit by Landlock: %w", err)
	}
	return nil
}

// LandlockVersion is that of the kernel; 0 if it has none.
func LandlockVersion() int {
	version, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0
	}
	return int(version)
}

package sandbox

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// dropBounding makes it impossible to get capabilities outside of a set, by any program.
func dropBounding(keep Capabilities) error {
	for number := 0; ; number++ {
		has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(number), 0, 0, 0)
		if err != nil { // beyond the last that the kernel has
			return nil
		}
		if has == 0 || keep.Has(number) {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(number), 0, 0, 0); err != nil {
			return fmt.Errorf("cannot drop capability %d: %w", number, err)
		}
	}
}

// become makes the thread the user of the unit, with its capabilities and no others.
func (p *Plan) become(capabilities Capabilities) error {
	if p.Become {
		if err := unix.Setgroups(p.Groups); err != nil {
			return fmt.Errorf("cannot set groups: %w", err)
		}
		if err := unix.Setresgid(p.GID, p.GID, p.GID); err != nil {
			return fmt.Errorf("cannot become group %d: %w", p.GID, err)
		}
		if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("cannot keep capabilities: %w", err)
		}
		if err := unix.Setresuid(p.UID, p.UID, p.UID); err != nil {
			return fmt.Errorf("cannot become user %d: %w", p.UID, err)
		}
	} else if !p.confined() {
		return nil // root, or a supervisor without privileges: as it is
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	for i := range sets {
		part := uint32(capabilities >> (32 * i))
		sets[i] = unix.CapUserData{Effective: part, Permitted: part, Inheritable: part}
	}
	if err := unix.Capset(&header, &sets[0]); err != nil {
		return fmt.Errorf("cannot set capabilities: %w", err)
	}
	if p.UID == 0 {
		return nil // root gets what the bounding set leaves
	}
	for number := range capabilityNames {
		if !capabilities.Has(number) {
			continue
		}
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(number), 0, 0); err != nil {
			return fmt.Errorf("cannot keep capability %s: %w", capabilityNames[number], err)
		}
	}
	return nil
}

// Package confinetest is for tests of what is confined.
package confinetest

import (
	"testing"

	"golang.org/x/sys/unix"
)

// Need skips a test where nothing can be confined.
func Need(t *testing.T) {
	t.Helper()
	version, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 || version < 6 {
		t.Skipf("the kernel has Landlock version %d (%v), 6 is needed", int(version), errno)
	}
}

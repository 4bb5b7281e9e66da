package system

import (
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"
)

// trim gives back what PID 1 does not need at rest: unused memory of the heap, and the
// pages of its program, of which the boot has touched most and the rest of its life
// touches few. The kernel reads a page again when it is used.
func trim() {
	debug.FreeOSMemory()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return
	}
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	for _, m := range programPages(string(maps), self) {
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, m[0], m[1]-m[0], unix.MADV_DONTNEED) // else they stay
	}
}

// programPages finds the mappings of a program that nothing writes to (proc(5), maps).
func programPages(maps, program string) (ranges [][2]uintptr) {
	for line := range strings.Lines(maps) {
		fields := strings.Fields(line)
		if len(fields) != 6 || fields[5] != program || strings.Contains(fields[1], "w") {
			continue
		}
		var begin, end uintptr
		if _, err := fmt.Sscanf(fields[0], "%x-%x", &begin, &end); err == nil && begin < end {
			ranges = append(ranges, [2]uintptr{begin, end})
		}
	}
	return ranges
}

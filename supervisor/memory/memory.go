// Package memory gives back what a program that lives as long as the machine does not need at
// rest: unused memory of the heap, and the pages of the program itself (madvise(2)), of which
// the start has touched most and the rest of its life touches few. The kernel reads a page
// again when it is used.
package memory

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/waltos/waltos/services/periodic"
)

// interval is how often memory is given back: it costs about a millisecond.
const interval = time.Minute

// Save gives memory back now and then, until ctx ends.
func Save(ctx context.Context) { periodic.Every(ctx, interval, Trim) }

// Trim gives memory back now.
func Trim() {
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

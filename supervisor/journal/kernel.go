package journal

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// KernelLine is one record of /dev/kmsg (Documentation/ABI/testing/dev-kmsg of Linux).
type KernelLine struct {
	Level    int // 0 emergency to 7 debug
	Facility int // 0: the kernel; 1: user space
	Since    time.Duration
	Text     string
}

// ReadKernel calls each for all kernel messages, from the oldest kept on, until the
// file is closed or fails.
func ReadKernel(f *os.File, each func(KernelLine)) error {
	buffer := make([]byte, 8192)
	for {
		n, err := f.Read(buffer)
		if errors.Is(err, unix.EPIPE) {
			continue // overwritten before it was read
		}
		if err != nil {
			return fmt.Errorf("cannot read kernel messages: %w", err)
		}
		if line, ok := parseKernel(string(buffer[:n])); ok {
			each(line)
		}
	}
}

// parseKernel reads "PRIORITY,SEQUENCE,MICROSECONDS,FLAGS[,...];TEXT\n KEY=VALUE...".
func parseKernel(record string) (KernelLine, bool) {
	head, text, ok := strings.Cut(record, ";")
	fields := strings.Split(head, ",")
	if !ok || len(fields) < 3 {
		return KernelLine{}, false
	}
	priority, err := strconv.ParseUint(fields[0], 10, 16)
	if err != nil {
		return KernelLine{}, false
	}
	micros, err := strconv.ParseInt(fields[2], 10, 64)
	if err != nil || micros < 0 || micros > int64(1<<62)/1000 {
		return KernelLine{}, false
	}
	text, _, _ = strings.Cut(text, "\n") // the rest is the device dictionary
	return KernelLine{
		Level: int(priority & 7), Facility: int(priority >> 3),
		Since: time.Duration(micros) * time.Microsecond, Text: text,
	}, true
}

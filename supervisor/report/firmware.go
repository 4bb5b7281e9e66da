package report

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// fpdt is where the kernel shows the Firmware Performance Data Table of ACPI (6.5,
// section 5.2.24): nanoseconds since the reset of the processor.
const fpdt = "/sys/firmware/acpi/fpdt/boot"

// FirmwareTime returns the time from the reset to the kernel, or 0 if the firmware does
// not tell.
func FirmwareTime() time.Duration { return firmwareTime(fpdt) }

func firmwareTime(dir string) time.Duration {
	text, err := os.ReadFile(filepath.Join(dir, "exitbootservice_end_ns"))
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	// Some tables hold garbage; no firmware takes a quarter of an hour.
	if err != nil || n < 0 || n > int64(15*time.Minute) {
		return 0
	}
	return time.Duration(n)
}

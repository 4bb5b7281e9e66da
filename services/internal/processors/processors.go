// Package processors is how much of the machine a process of the daemon takes.
package processors

import (
	"os"
	"runtime"
)

// Share leaves half of the processors to the other processes: a request passes through
// several, and to wake an idle processor costs more than to serve it. GOMAXPROCS of the
// environment, if set, is obeyed.
func Share() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(max(1, runtime.GOMAXPROCS(0)/2))
	}
}

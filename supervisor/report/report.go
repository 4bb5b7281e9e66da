// Package report notes when the phases of a boot began and ended, from the first
// instruction of PID 1 on; the two lives of PID 1 (initramfs, root) share a file.
package report

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Path is where the report waits for the second life of PID 1 and for waltctl.
const Path = "/run/walt/boot.json"

// Phase is one step of a boot; times are since the kernel started.
type Phase struct {
	Name  string        `json:"name"`
	Begin time.Duration `json:"begin"`
	End   time.Duration `json:"end"`
}

// Report is a list of phases. Its methods may be called from any goroutine.
type Report struct {
	mu     sync.Mutex
	phases []Phase
}

// Uptime is the time since the kernel started.
func Uptime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// Begin notes the beginning of a phase; the function that it returns notes the end.
func (r *Report) Begin(name string) (end func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := len(r.phases)
	r.phases = append(r.phases, Phase{Name: name, Begin: Uptime()})
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.phases[i].End = Uptime()
	}
}

// Phases returns the list so far.
func (r *Report) Phases() []Phase {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Phase(nil), r.phases...)
}

// Save writes the report.
func (r *Report) Save(path string) error {
	text, err := json.Marshal(r.Phases())
	if err != nil {
		return fmt.Errorf("cannot write boot report: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("cannot write boot report: %w", err)
	}
	if err := os.WriteFile(path, text, 0o644); err != nil {
		return fmt.Errorf("cannot write boot report: %w", err)
	}
	return nil
}

// Load continues a saved report; without one it begins anew.
func Load(path string) *Report {
	r := &Report{}
	if text, err := os.ReadFile(path); err == nil {
		_ = json.Unmarshal(text, &r.phases) // a report is not worth an error
	}
	// The last phase of the first life ended by becoming the second.
	if n := len(r.phases); n > 0 && r.phases[n-1].End == 0 {
		r.phases[n-1].End = Uptime()
	}
	return r
}

package unit

import "time"

// SystemClock is the clock of the machine.
type SystemClock struct{}

// Now is time.Now: its monotonic part makes durations immune to a clock that is set.
func (SystemClock) Now() time.Time { return time.Now() }

// AfterFunc is time.AfterFunc.
func (SystemClock) AfterFunc(d time.Duration, f func()) Timer { return time.AfterFunc(d, f) }

// Package clock keeps the time of the machine from beginning in 1970, or in any other past,
// when the battery of its real-time clock is empty: the time of the last run is kept as the
// modification time of a file of the data partition, which takes no space, cannot be torn by
// a power cut, and is written also on a full disk.
//
// The clock is only ever set forward, and only before anything is started: from then on it is
// in the hands of the time service.
package clock

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Machine is the clock of a computer.
type Machine interface {
	Now() time.Time
	Set(time.Time) error
	// Keep gives the time to what counts on while the power is off.
	Keep(time.Time) error
}

// Keeper remembers the time from one run to the next.
type Keeper struct {
	Machine Machine
	File    string
	// Built is when the system was made, zero if nobody knows: it cannot be earlier.
	Built time.Time
}

// Restored is what was wrong with the clock.
type Restored struct {
	Said, Set time.Time
	Why       string
}

func (r *Restored) String() string {
	return fmt.Sprintf("the clock said %s, before %s; it was set to that, %s",
		r.Said.UTC().Format(time.DateTime), r.Why, r.Set.UTC().Format(time.DateTime))
}

// Restore sets the clock if it is behind what it must be; nil: it is not.
func (k *Keeper) Restore() (*Restored, error) {
	earliest, why := k.Built, "the system was built"
	info, err := os.Stat(k.File)
	switch {
	case err == nil && info.ModTime().After(earliest):
		earliest, why = info.ModTime(), "the end of the last run"
	case errors.Is(err, fs.ErrNotExist):
		err = nil
	}
	if err != nil {
		err = fmt.Errorf("cannot compare the clock with the last run: %w", err)
	}
	now := k.Machine.Now()
	if !now.Before(earliest) {
		return nil, err
	}
	if setErr := k.Machine.Set(earliest); setErr != nil {
		return nil, errors.Join(err, fmt.Errorf("cannot set the clock: %w", setErr))
	}
	if keepErr := k.Machine.Keep(earliest); keepErr != nil {
		err = errors.Join(err, fmt.Errorf("cannot set the real-time clock: %w", keepErr))
	}
	return &Restored{Said: now, Set: earliest, Why: why}, err
}

// Save remembers the time.
func (k *Keeper) Save() error {
	now := k.Machine.Now()
	err := os.Chtimes(k.File, now, now)
	if errors.Is(err, fs.ErrNotExist) {
		var f *os.File
		if f, err = os.OpenFile(k.File, os.O_CREATE|os.O_WRONLY, 0o644); err == nil {
			err = errors.Join(f.Close(), os.Chtimes(k.File, now, now))
		}
	}
	if err != nil {
		return fmt.Errorf("cannot remember the time: %w", err)
	}
	return nil
}

// Finish is Save at the end of a run; the real-time clock gets the time too.
func (k *Keeper) Finish() error {
	err := k.Save()
	if keepErr := k.Machine.Keep(k.Machine.Now()); keepErr != nil && !errors.Is(keepErr, fs.ErrNotExist) {
		err = errors.Join(err, fmt.Errorf("cannot set the real-time clock: %w", keepErr))
	}
	return err
}

// System is the clock of this computer. RTC is the device file of its real-time clock, which
// counts in universal time; a machine may have none.
type System struct{ RTC string }

// Now implements Machine.
func (System) Now() time.Time { return time.Now() }

// Set implements Machine.
func (System) Set(t time.Time) error {
	tv := unix.NsecToTimeval(t.UnixNano())
	return unix.Settimeofday(&tv)
}

// Keep implements Machine (rtc(4)).
func (s System) Keep(t time.Time) error {
	f, err := os.Open(s.RTC)
	if err != nil {
		return err
	}
	defer f.Close()
	t = t.UTC()
	return unix.IoctlSetRTCTime(int(f.Fd()), &unix.RTCTime{
		Sec: int32(t.Second()), Min: int32(t.Minute()), Hour: int32(t.Hour()),
		Mday: int32(t.Day()), Mon: int32(t.Month()) - 1, Year: int32(t.Year()) - 1900,
	})
}

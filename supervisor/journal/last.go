package journal

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Query is which records are wanted. Its zero value wants all.
type Query struct {
	Lines  int       // the last so many; 0: all
	Units  []string  // empty: of all
	Since  time.Time // zero: any
	Until  time.Time
	Boot   uint64            // 0: any
	Wanted func(Record) bool // beyond that; nil: all
}

// Wants tells whether a record is wanted.
func (q *Query) Wants(r Record) bool {
	return (len(q.Units) == 0 || slices.Contains(q.Units, r.Unit)) &&
		(q.Since.IsZero() || !r.Time().Before(q.Since)) &&
		(q.Until.IsZero() || !r.Time().After(q.Until)) &&
		(q.Boot == 0 || r.Boot == q.Boot) &&
		(q.Wanted == nil || q.Wanted(r))
}

// mayBeIn tells whether a segment may hold what is wanted.
func (q *Query) mayBeIn(path string) bool {
	s, err := summaryOf(path, false)
	if err != nil || s == nil {
		return true
	}
	has := func(unit string) bool { return s.Units[unit] > 0 }
	return (len(q.Units) == 0 || slices.ContainsFunc(q.Units, has)) &&
		(q.Since.IsZero() || s.Late >= q.Since.UnixMicro()) &&
		(q.Until.IsZero() || s.Early <= q.Until.UnixMicro()) &&
		(q.Boot == 0 || slices.ContainsFunc(s.Boots, func(b Boot) bool { return b.Number == q.Boot }))
}

// maybe tells whether a line may be of a record that is wanted. Names of units need no escape.
func (q *Query) maybe(line []byte) bool {
	return len(q.Units) == 0 || slices.ContainsFunc(q.Units, func(unit string) bool {
		return bytes.Contains(line, []byte(`"u":"`+unit+`"`))
	})
}

// Last calls each for the records of a folder that are wanted, the oldest first.
func Last(dir string, q Query, each func(Record) error) error {
	segments, err := Segments(dir)
	if err != nil {
		return err
	}
	segments = slices.DeleteFunc(segments, func(path string) bool { return !q.mayBeIn(path) })
	if q.Lines <= 0 {
		for _, path := range segments {
			if err := readSegment(path, q.maybe, func(r Record) error {
				if q.Wants(r) {
					return each(r)
				}
				return nil
			}); err != nil {
				return err
			}
		}
		return nil
	}
	var kept []Record
	for _, path := range slices.Backward(segments) {
		if len(kept) >= q.Lines {
			break
		}
		var here []Record
		if err := readSegment(path, q.maybe, func(r Record) error {
			if q.Wants(r) {
				if here = append(here, r); len(here) > 2*q.Lines {
					here = append(here[:0], here[q.Lines:]...)
				}
			}
			return nil
		}); err != nil {
			return err
		}
		kept = append(here, kept...)
	}
	for _, r := range kept[max(0, len(kept)-q.Lines):] {
		if err := each(r); err != nil {
			return err
		}
	}
	return nil
}

// kernelTime is how long it is waited for one more message of the kernel.
const kernelTime = 100 * time.Millisecond

// Kernel returns the messages that the kernel keeps, the oldest first.
func Kernel() ([]KernelLine, error) {
	f, err := os.OpenFile("/dev/kmsg", os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot read kernel messages: %w", err)
	}
	defer f.Close()
	var lines []KernelLine
	if err := f.SetReadDeadline(time.Now().Add(kernelTime)); err != nil {
		return nil, fmt.Errorf("cannot read kernel messages: %w", err)
	}
	_ = ReadKernel(f, func(l KernelLine) { lines = append(lines, l) }) // up to the deadline
	return lines, nil
}

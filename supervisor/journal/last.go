package journal

import (
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Last calls each for the last records of a folder that are wanted, as many as lines (0:
// all), the oldest first.
func Last(dir string, lines int, wanted func(Record) bool, each func(Record) error) error {
	segments, err := Segments(dir)
	if err != nil {
		return err
	}
	if lines <= 0 {
		for _, path := range segments {
			if err := ReadSegment(path, func(r Record) error {
				if wanted(r) {
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
		if len(kept) >= lines {
			break
		}
		var here []Record
		if err := ReadSegment(path, func(r Record) error {
			if wanted(r) {
				if here = append(here, r); len(here) > 2*lines {
					here = append(here[:0], here[lines:]...)
				}
			}
			return nil
		}); err != nil {
			return err
		}
		kept = append(here, kept...)
	}
	for _, r := range kept[max(0, len(kept)-lines):] {
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

package trackexec

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/waltos/waltos/services/atomicfile"
	"github.com/waltos/waltos/services/daemon/trackexec/format"
)

// maxBlocks is how many blocks a segment has at most, which bounds the index of a trace
// whose blocks are small.
const maxBlocks = 1 << 14

// openTrace opens a folder, which may have a trace of an earlier life of the process.
func openTrace(folder string, c Config) (_ *trace, err error) {
	t := &trace{Config: c, folder: folder}
	if err := os.Mkdir(filepath.Join(folder, format.MapName), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("cannot begin a trace: %w", err)
	}
	if err := os.WriteFile(filepath.Join(folder, format.PIDName), fmt.Appendln(nil, os.Getpid()), 0o644); err != nil {
		return nil, fmt.Errorf("cannot begin a trace: %w", err)
	}
	if t.numbers, err = segments(folder); err != nil {
		return nil, fmt.Errorf("cannot continue a trace: %w", err)
	}
	if t.index, err = os.OpenFile(filepath.Join(folder, format.IndexName), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644); err != nil {
		return nil, fmt.Errorf("cannot begin a trace: %w", err)
	}
	// A life that was killed may have written a part of an entry.
	info, err := t.index.Stat()
	if err == nil {
		err = t.index.Truncate(info.Size() - info.Size()%format.EntrySize)
	}
	if err != nil {
		t.index.Close()
		return nil, fmt.Errorf("cannot continue a trace: %w", err)
	}
	return t, nil
}

// segments returns the numbers of the segments of a trace, in order.
func segments(folder string) ([]uint32, error) {
	files, err := os.ReadDir(filepath.Join(folder, format.MapName))
	if err != nil {
		return nil, err
	}
	var numbers []uint32
	for _, f := range files {
		if n, err := strconv.ParseUint(f.Name(), 10, 32); err == nil {
			numbers = append(numbers, uint32(n))
		}
	}
	slices.SortFunc(numbers, cmp.Compare[uint32])
	return numbers, nil
}

// begin begins a segment, and removes the oldest ones if there are too many.
func (t *trace) begin() error {
	if t.segment != nil {
		t.segment.Close()
		t.segment = nil
	}
	if err := t.checkDisk(); err != nil {
		return err
	}
	if most := int(max(t.Size/t.Segment, 1)); len(t.numbers) >= most {
		dropped := t.numbers[:len(t.numbers)-most+1]
		if err := t.drop(dropped); err != nil {
			return fmt.Errorf("cannot drop the oldest part of the trace: %w", err)
		}
		t.numbers = slices.Clone(t.numbers[len(dropped):])
	}
	var next uint32
	if n := len(t.numbers); n > 0 {
		next = t.numbers[n-1] + 1
	}
	f, err := os.OpenFile(format.SegmentPath(t.folder, next), os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("cannot write to the trace: %w", err)
	}
	t.segment, t.size, t.blocks = f, 0, 0
	t.numbers = append(t.numbers, next)
	return nil
}

// checkDisk leaves to others what they may need of the disk.
func (t *trace) checkDisk() error {
	if t.Reserve < 0 {
		return nil
	}
	var s unix.Statfs_t
	if err := unix.Statfs(t.folder, &s); err != nil {
		return fmt.Errorf("cannot write to the trace: %w", err)
	}
	if left := int64(s.Bavail) * s.Bsize; left-t.Segment < t.Reserve {
		return fmt.Errorf("only %d MiB are left on the disk, of which %d are reserved", left>>20, t.Reserve>>20)
	}
	return nil
}

// drop removes the oldest segments, with their entries of the index.
func (t *trace) drop(numbers []uint32) error {
	path := filepath.Join(t.folder, format.IndexName)
	index, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	kept := make([]byte, 0, len(index))
	for entry := range slices.Chunk(index, format.EntrySize) {
		e, err := format.DecodeEntry(entry)
		if err == nil && !slices.Contains(numbers, e.Segment) {
			kept = append(kept, entry...)
		}
	}
	f, err := atomicfile.Replace(path, kept, 0o644)
	if err != nil {
		return err
	}
	t.index.Close()
	t.index = f
	for _, n := range numbers {
		if err := os.Remove(format.SegmentPath(t.folder, n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

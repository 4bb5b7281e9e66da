package timeline

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/waltos/waltos/services/daemon/trackexec/format"
)

// maxIndex bounds the index that is read, in bytes: that of a trace of the greatest size
// takes a part of it.
const maxIndex = 64 << 20

// trace is the folder of one process.
type trace struct {
	folder  string
	process string
	blocks  []block // by last time
	warn    func(format string, args ...any)
}

// block is a block of a trace that may be read.
type block struct {
	format.Entry
	earliest int64 // time of the first event of this block and of all later ones
}

// openTrace reads the index of a trace, and finds the blocks that it lacks.
func openTrace(folder string, warn func(format string, args ...any)) (*trace, error) {
	t := &trace{folder: folder, process: filepath.Base(folder), warn: warn}
	entries, err := t.readIndex()
	if err != nil {
		return nil, err
	}
	files, err := os.ReadDir(filepath.Join(folder, format.MapName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, f := range files {
		n, err := strconv.ParseUint(f.Name(), 10, 32)
		if err != nil {
			continue
		}
		if err := t.openSegment(uint32(n), entries[uint32(n)]); err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(t.blocks, func(a, b block) int { return cmp.Compare(a.Last, b.Last) })
	for i := len(t.blocks) - 1; i >= 0; i-- {
		t.blocks[i].earliest = t.blocks[i].First
		if i+1 < len(t.blocks) {
			t.blocks[i].earliest = min(t.blocks[i].First, t.blocks[i+1].earliest)
		}
	}
	return t, nil
}

// readIndex returns the entries of each segment.
func (t *trace) readIndex() (map[uint32][]format.Entry, error) {
	f, err := os.Open(filepath.Join(t.folder, format.IndexName))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxIndex))
	if err != nil {
		return nil, err
	}
	entries, damaged := map[uint32][]format.Entry{}, 0
	for ; len(data) > 0; data = data[min(format.EntrySize, len(data)):] {
		e, err := format.DecodeEntry(data[:min(format.EntrySize, len(data))])
		if err != nil {
			damaged++
			continue
		}
		entries[e.Segment] = append(entries[e.Segment], e)
	}
	if damaged > 0 {
		t.warn("%s: %d entries of the index are damaged, looking for their blocks", t.folder, damaged)
	}
	return entries, nil
}

// openSegment adds the blocks of a segment: those of the index, and those in between.
func (t *trace) openSegment(number uint32, entries []format.Entry) error {
	f, err := os.Open(format.SegmentPath(t.folder, number))
	if errors.Is(err, fs.ErrNotExist) { // dropped meanwhile
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	slices.SortFunc(entries, func(a, b format.Entry) int { return cmp.Compare(a.Offset, b.Offset) })
	at := int64(0)
	for _, e := range entries {
		begin := int64(e.Offset)
		if begin < at || begin+int64(e.Size) > info.Size() {
			t.warn("%s: segment %d has no block at %d", t.folder, number, begin)
			continue
		}
		t.scan(f, number, at, begin)
		t.blocks = append(t.blocks, block{Entry: e})
		at = begin + int64(e.Size)
	}
	t.scan(f, number, at, info.Size())
	return nil
}

// scan adds the blocks of a part of a segment that the index does not tell of.
func (t *trace) scan(f *os.File, number uint32, at, end int64) {
	for at < end {
		data, err := readBlock(f, at, end)
		var events []format.Event
		if err == nil {
			events, err = format.Decode(data)
		}
		if err != nil || len(events) == 0 {
			t.warn("%s: segment %d: %d bytes at %d are lost: %v", t.folder, number, end-at, at, err)
			return
		}
		e := format.Entry{Segment: number, Offset: uint32(at), Size: uint32(len(data)), Events: uint32(len(events))}
		e.First, e.Last = events[0].Time(), events[0].Time()
		for i := range events {
			e.First, e.Last = min(e.First, events[i].Time()), max(e.Last, events[i].Time())
		}
		t.blocks = append(t.blocks, block{Entry: e})
		at += int64(len(data))
	}
}

// readBlock reads the block at an offset, which must end before end.
func readBlock(f io.ReaderAt, at, end int64) ([]byte, error) {
	header := make([]byte, format.HeaderSize)
	if at+format.HeaderSize > end {
		return nil, errors.New("the block is not complete")
	}
	if _, err := f.ReadAt(header, at); err != nil {
		return nil, err
	}
	size, err := format.Size(header)
	if err != nil {
		return nil, err
	}
	if at+int64(size) > end {
		return nil, errors.New("the block is not complete")
	}
	data := make([]byte, size)
	_, err = f.ReadAt(data, at)
	return data, err
}

// read returns the events of a block, none if it is damaged or was dropped meanwhile.
func (t *trace) read(b *block) []format.Event {
	events, err := t.decode(b)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.warn("%s: %d events are lost: segment %d at %d: %v", t.folder, b.Events, b.Segment, b.Offset, err)
	}
	return events
}

func (t *trace) decode(b *block) ([]format.Event, error) {
	f, err := os.Open(format.SegmentPath(t.folder, b.Segment))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data := make([]byte, b.Size)
	if _, err := f.ReadAt(data, int64(b.Offset)); err != nil {
		return nil, fmt.Errorf("cannot read: %w", err)
	}
	return format.Decode(data)
}

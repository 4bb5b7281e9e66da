// Package timeline reads execution traces (package format), of one process or of all those
// of a run, as one list of events in the order of time.
//
// It holds the indexes and a few blocks, never a whole trace: the list is read in slices,
// from any moment. What is damaged is skipped, and told.
package timeline

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"github.com/waltos/waltos/services/daemon/trackexec/format"
)

// maxEvents is how many events of expanded blocks are kept.
const maxEvents = 500_000

// folderError tells, in upstream's words, what is wrong with a folder.
type folderError string

func (e folderError) Error() string { return string(e) }

const errNoTrace folderError = `The specified directory must contain a "log_index" file.`

// Event is one event of a process.
type Event struct {
	format.Event
	Process string
}

// Timeline is the traces of one run, or a part of them.
type Timeline struct {
	traces []*trace
	bounds []int64 // where slices end, in order
	cache  map[blockKey][]format.Event
	recent []blockKey // of the cache, oldest first
	held   int        // events of the cache
	slice  []Event    // the one last read
	number int
}

type blockKey struct{ trace, block int }

// Open opens the trace in a folder, or those in its folders. warn is told what is damaged.
func Open(folder string, warn func(format string, args ...any)) (*Timeline, error) {
	info, err := os.Stat(folder)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, folderError("No such directory: " + folder)
	case err != nil:
		return nil, err
	case !info.IsDir():
		return nil, folderError("Not a directory: " + folder)
	}
	if folder, err = filepath.Abs(folder); err != nil {
		return nil, err
	}
	folders, err := traceFolders(folder)
	if err != nil {
		return nil, err
	}
	t := &Timeline{cache: map[blockKey][]format.Event{}, number: -1}
	for _, f := range folders {
		trace, err := openTrace(f, warn)
		if err != nil {
			return nil, err
		}
		t.traces = append(t.traces, trace)
		for _, b := range trace.blocks {
			t.bounds = append(t.bounds, b.Last+1)
		}
	}
	slices.Sort(t.bounds)
	t.bounds = slices.Compact(t.bounds)
	return t, nil
}

// traceFolders returns the folder itself or, if it is that of a run, those in it.
func traceFolders(folder string) ([]string, error) {
	if isTrace(folder) {
		return []string{folder}, nil
	}
	files, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	var folders []string
	for _, f := range files {
		if path := filepath.Join(folder, f.Name()); f.IsDir() && isTrace(path) {
			folders = append(folders, path)
		}
	}
	if len(folders) == 0 {
		return nil, errNoTrace
	}
	return folders, nil
}

func isTrace(folder string) bool {
	info, err := os.Stat(filepath.Join(folder, format.IndexName))
	return err == nil && info.Mode().IsRegular()
}

// Processes returns the names of the processes.
func (t *Timeline) Processes() []string {
	var names []string
	for _, trace := range t.traces {
		names = append(names, trace.process)
	}
	return names
}

// Slices returns how many slices the timeline has.
func (t *Timeline) Slices() int { return len(t.bounds) }

// Slice returns the events of a slice, in order. They are valid until the next call.
func (t *Timeline) Slice(n int) []Event {
	if n == t.number {
		return t.slice
	}
	t.number, t.slice = n, t.slice[:0]
	from, to := int64(-1<<63), t.bounds[n]
	if n > 0 {
		from = t.bounds[n-1]
	}
	for i, trace := range t.traces {
		begin := sort.Search(len(trace.blocks), func(j int) bool { return trace.blocks[j].Last >= from })
		for j := begin; j < len(trace.blocks) && trace.blocks[j].earliest < to; j++ {
			if trace.blocks[j].First >= to {
				continue
			}
			for _, e := range t.read(blockKey{i, j}) {
				if at := e.Time(); at >= from && at < to {
					t.slice = append(t.slice, Event{e, trace.process})
				}
			}
		}
	}
	slices.SortStableFunc(t.slice, func(a, b Event) int {
		return cmp.Or(cmp.Compare(a.Time(), b.Time()), cmp.Compare(a.Process, b.Process), cmp.Compare(a.ID, b.ID))
	})
	return t.slice
}

// Find returns the slice that a moment is in, or the nearest one.
func (t *Timeline) Find(at int64) int {
	n := sort.Search(len(t.bounds), func(i int) bool { return at < t.bounds[i] })
	return max(0, min(n, len(t.bounds)-1))
}

// read returns the events of a block.
func (t *Timeline) read(key blockKey) []format.Event {
	if events, ok := t.cache[key]; ok {
		return events
	}
	for t.held > maxEvents {
		t.held -= len(t.cache[t.recent[0]])
		delete(t.cache, t.recent[0])
		t.recent = t.recent[1:]
	}
	trace := t.traces[key.trace]
	events := trace.read(&trace.blocks[key.block])
	t.cache[key] = events
	t.held += len(events)
	t.recent = append(t.recent, key)
	return events
}

// Each gives all events to a function, in no order, without keeping any.
func (t *Timeline) Each(do func(e Event)) {
	for _, trace := range t.traces {
		for i := range trace.blocks {
			for _, e := range trace.read(&trace.blocks[i]) {
				do(Event{e, trace.process})
			}
		}
	}
}

// Span returns the moments of the first and last events.
func (t *Timeline) Span() (first, last int64, any bool) {
	for _, trace := range t.traces {
		if n := len(trace.blocks); n > 0 {
			begin, end := trace.blocks[0].earliest, trace.blocks[n-1].Last
			if !any {
				first, last, any = begin, end, true
			}
			first, last = min(first, begin), max(last, end)
		}
	}
	return first, last, any
}

// Printable replaces what a terminal might obey: names may come from strangers.
func Printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == 0xfffd {
			return '?'
		}
		return r
	}, text)
}

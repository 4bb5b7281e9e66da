package timeline

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/waltos/waltos/services/daemon/trackexec/format"
	"github.com/waltos/waltos/services/daemon/trackexec/tracetest"
)

// list returns all events in the order of the slices.
func list(t *Timeline) (events []Event) {
	for n := range t.Slices() {
		events = append(events, t.Slice(n)...)
	}
	return events
}

func TestOrder(t *testing.T) {
	folder := tracetest.Run(t, 20)
	line, err := Open(folder, t.Errorf)
	if err != nil {
		t.Fatal(err)
	}
	events := list(line)
	each := 0
	line.Each(func(Event) { each++ })
	if len(events) != 20+20*4+2+2 || len(events) != each {
		t.Errorf("%d events, %d of them in slices", each, len(events))
	}
	if !slices.IsSortedFunc(events, func(a, b Event) int { return int(a.Time() - b.Time()) }) {
		t.Error("they are not in order")
	}
	for _, second := range []int{0, 3, 10, 19} {
		at := tracetest.Begin + int64(second)*int64(time.Second)
		found := line.Slice(line.Find(at))
		if !slices.ContainsFunc(found, func(e Event) bool { return e.Time() == at }) {
			t.Errorf("second %d is not in its slice", second)
		}
	}
	first, last, any := line.Span()
	if !any || first != tracetest.Begin || last < first+19*int64(time.Second) {
		t.Errorf("span %d %d", first-tracetest.Begin, last-tracetest.Begin)
	}
}

// TestSlicesHoldEachEventOnce is for blocks that overlap in any way.
func TestSlicesHoldEachEventOnce(t *testing.T) {
	folder := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		var blocks [][]format.Event
		id := uint64(0)
		for range rapid.IntRange(1, 8).Draw(rt, "blocks") {
			var block []format.Event
			for range rapid.IntRange(1, 5).Draw(rt, "events") {
				id++
				block = append(block, format.Event{ID: id, Start: rapid.Int64Range(0, 50).Draw(rt, "start"), Kind: format.Task, State: format.Done})
			}
			blocks = append(blocks, block)
		}
		tracetest.Write(t, filepath.Join(folder, "a"), blocks)
		line, err := Open(folder, func(text string, args ...any) { rt.Errorf(text, args...) })
		if err != nil {
			rt.Fatal(err)
		}
		seen := map[uint64]bool{}
		last := int64(-1)
		for _, e := range list(line) {
			if seen[e.ID] || e.Time() < last {
				rt.Fatalf("event %d at %d, after %d", e.ID, e.Time(), last)
			}
			seen[e.ID], last = true, e.Time()
		}
		if len(seen) != int(id) {
			rt.Fatalf("%d of %d events", len(seen), id)
		}
	})
}

func TestRefusedFolders(t *testing.T) {
	folder := t.TempDir()
	file := filepath.Join(folder, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	none := filepath.Join(folder, "none")
	for path, want := range map[string]string{
		none:   "No such directory: " + none,
		file:   "Not a directory: " + file,
		folder: `The specified directory must contain a "log_index" file.`,
	} {
		if _, err := Open(path, t.Errorf); err == nil || err.Error() != want {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// damage changes a file of a trace.
func damage(t *testing.T, path string, change func(data []byte) []byte) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, change(data), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestDamage(t *testing.T) {
	const calls = 20
	main := func(folder, name string) string { return filepath.Join(folder, "server-main", name) }
	tests := []struct {
		name   string
		change func(t *testing.T, folder string)
		lost   int // events at most
		told   string
	}{
		{"a byte of a block", func(t *testing.T, folder string) {
			damage(t, main(folder, "log_map/1"), func(data []byte) []byte { data[100] ^= 1; return data })
		}, 5, "events are lost"},
		{"the end of a segment", func(t *testing.T, folder string) {
			damage(t, main(folder, "log_map/1"), func(data []byte) []byte { return data[:len(data)-10] })
		}, 5, "has no block at"},
		{"an entry of the index", func(t *testing.T, folder string) {
			damage(t, main(folder, "log_index"), func(data []byte) []byte { data[40] ^= 1; return data })
		}, 0, "1 entries of the index are damaged"},
		{"the end of the index", func(t *testing.T, folder string) {
			damage(t, main(folder, "log_index"), func(data []byte) []byte { return data[:5*format.EntrySize-7] })
		}, 0, "1 entries of the index are damaged"},
		{"the whole index", func(t *testing.T, folder string) {
			damage(t, main(folder, "log_index"), func([]byte) []byte { return nil })
		}, 0, ""},
		{"a segment", func(t *testing.T, folder string) {
			if err := os.Remove(main(folder, "log_map/0")); err != nil {
				t.Fatal(err)
			}
		}, 5 * calls, ""},
		{"zeroes after the last block", func(t *testing.T, folder string) {
			damage(t, main(folder, "log_map/1"), func(data []byte) []byte { return append(data, make([]byte, 100)...) })
		}, 0, "100 bytes"},
		{"the same block twice in the index", func(t *testing.T, folder string) {
			damage(t, main(folder, "log_index"), func(data []byte) []byte { return append(data, data[:format.EntrySize]...) })
		}, 0, "has no block at 0"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			folder := tracetest.Run(t, calls)
			whole, err := Open(folder, t.Errorf)
			if err != nil {
				t.Fatal(err)
			}
			all := len(list(whole))
			test.change(t, folder)
			var told strings.Builder
			line, err := Open(folder, func(format string, args ...any) { fmt.Fprintf(&told, format+"\n", args...) })
			if err != nil {
				t.Fatal(err)
			}
			if n := len(list(line)); n > all || n < all-test.lost || test.lost == 0 && n != all {
				t.Errorf("%d of %d events are left", n, all)
			}
			if !strings.Contains(told.String(), test.told) || test.told == "" && told.Len() > 0 {
				t.Errorf("told %q", told.String())
			}
		})
	}
}

// FuzzOpen reads traces of any bytes.
func FuzzOpen(f *testing.F) {
	folder := tracetest.Run(f, 4)
	index, err := os.ReadFile(filepath.Join(folder, "server-hub", format.IndexName))
	if err != nil {
		f.Fatal(err)
	}
	segment, err := os.ReadFile(format.SegmentPath(filepath.Join(folder, "server-hub"), 0))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(index, segment)
	f.Add([]byte{}, segment)
	f.Add(index, segment[:50])
	f.Add(bytes.Repeat(index[:format.EntrySize], 3), []byte("WTX1"))
	f.Fuzz(func(t *testing.T, index, segment []byte) {
		folder := t.TempDir()
		if err := os.Mkdir(filepath.Join(folder, format.MapName), 0o700); err != nil {
			t.Fatal(err)
		}
		for path, data := range map[string][]byte{filepath.Join(folder, format.IndexName): index, format.SegmentPath(folder, 0): segment} {
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		line, err := Open(folder, func(string, ...any) {})
		if err != nil {
			t.Fatal(err)
		}
		list(line)
		line.Each(func(Event) {})
		line.Span()
	})
}

// Package tracetest writes execution traces for tests.
package tracetest

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/waltos/waltos/services/daemon/trackexec/format"
)

// Begin is when the traces of Run begin, in nanoseconds.
var Begin = time.Date(2026, 11, 22, 10, 0, 0, 0, time.Local).UnixNano()

// Write writes the trace of a process: the blocks of each segment.
func Write(t testing.TB, folder string, segments ...[][]format.Event) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(folder, format.MapName), 0o755); err != nil {
		t.Fatal(err)
	}
	var index []byte
	for n, blocks := range segments {
		var data []byte
		for _, events := range blocks {
			var b format.Block
			for i := range events {
				b.Add(&events[i])
			}
			offset := len(data)
			var entry format.Entry
			data, entry = b.Append(data, 0)
			entry.Segment, entry.Offset = uint32(n), uint32(offset)
			index = entry.Append(index)
		}
		write(t, format.SegmentPath(folder, uint32(n)), data)
	}
	write(t, filepath.Join(folder, format.IndexName), index)
	write(t, filepath.Join(folder, format.PIDName), []byte("42\n"))
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// Run writes a run of two processes and returns its folder: calls in server-hub and, 100 µs
// later, in server-main, one each second, where they have a task with two statements; each
// tenth statement fails. The third call lasts from 2 s to 5 s, and a stream never ends.
func Run(t testing.TB, calls int) string {
	t.Helper()
	const ms = int64(time.Millisecond)
	folder := t.TempDir()
	var hub, main [][]format.Event
	for n := range calls {
		at, id := Begin+int64(n)*1000*ms, uint64(1000*(n+1))
		call := format.Event{ID: id, Start: at, Duration: 20 * ms, Number: 7, Kind: format.Request, State: format.Done, Name: "show_nodes", Detail: "CSAPI"}
		if n == 2 {
			call.Name, call.State, call.Duration = "wait_for_nodes", format.Open, 0
		}
		hub = append(hub, []format.Event{call})
		call.Start += ms / 10
		task := format.Event{ID: id + 1, Parent: id, Start: at + ms, Duration: 10 * ms, Number: -1, Depth: 1, Kind: format.Task, State: format.Done, Name: "loadAll", Detail: "server-db"}
		events := []format.Event{call, task}
		for i := range 2 {
			sql := format.Event{ID: id + 2 + uint64(i), Parent: id + 1, Start: at + int64(2+3*i)*ms, Duration: 2 * ms, Number: int64(n), Depth: 2, Kind: format.SQL, State: format.Done, Name: "SELECT mac FROM devices"}
			if i == 1 && n%10 == 9 {
				sql.State, sql.Failure = format.Failed, "PostgreSQL is restarting"
			}
			events = append(events, sql)
		}
		if n == 0 {
			events = append(events, format.Event{ID: 1, Start: at, Number: 42, Kind: format.Life, State: format.Done, Name: "server-main"},
				format.Event{ID: 2, Start: at + ms/2, Number: -1, Kind: format.Stream, State: format.Open, Name: "REQ_NEW_INCOMING_LOGS", Detail: "192.168.152.7"})
		}
		if n == 5 {
			end := format.Event{ID: 3000, Start: Begin + 2000*ms, Duration: 3000 * ms, Number: 7, Kind: format.Request, State: format.Done, Announced: true, Name: "wait_for_nodes", Detail: "CSAPI"}
			hub[5] = append(hub[5], end)
			end.Start += ms / 10
			events = append(events, end)
		}
		main = append(main, events)
	}
	half := len(main) / 2
	Write(t, filepath.Join(folder, "server-hub"), hub)
	Write(t, filepath.Join(folder, "server-main"), main[:half], main[half:])
	return folder
}

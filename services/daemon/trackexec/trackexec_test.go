package trackexec

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/waltos/waltos/services/daemon/trackexec/format"
)

// events returns all that is in the folder of a trace.
func events(t *testing.T, folder string) (all []format.Event) {
	t.Helper()
	index, err := os.ReadFile(filepath.Join(folder, format.IndexName))
	if err != nil {
		t.Fatal(err)
	}
	for ; len(index) > 0; index = index[format.EntrySize:] {
		e, err := format.DecodeEntry(index[:format.EntrySize])
		if err != nil {
			t.Fatal(err)
		}
		segment, err := os.ReadFile(format.SegmentPath(folder, e.Segment))
		if err != nil {
			t.Fatal(err)
		}
		list, err := format.Decode(segment[e.Offset : e.Offset+e.Size])
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, list...)
	}
	return all
}

func TestNesting(t *testing.T) {
	root := t.TempDir()
	r := Open(Config{Root: root, Process: Beginner, Warn: t.Errorf, Reserve: -1})
	ctx, request := r.Begin(t.Context(), Request, "set_image")
	request.Note("CSAPI", 7)
	inner, step := Begin(ctx, Task, "wait for mounts")
	_, sql := Begin(inner, SQL, "SELECT 1")
	sql.End(context.Canceled)
	step.End(errors.New("no mount"))
	step.End(nil) // does not count
	request.End(nil)
	_, unfinished := r.Begin(t.Context(), Stream, "log")
	r.Close()
	unfinished.End(nil) // too late, and harmless
	all := events(t, filepath.Join(root, latestName, Beginner))
	byName := map[string]format.Event{}
	for _, e := range all {
		byName[e.Name] = e
	}
	life, a, b, c, d := byName[Beginner], byName["set_image"], byName["wait for mounts"], byName["SELECT 1"], byName["log"]
	if life.Kind != format.Life || life.Number != int64(os.Getpid()) {
		t.Errorf("start: %+v", life)
	}
	if a.Parent != 0 || a.State != format.Done || a.Detail != "CSAPI" || a.Number != 7 || a.Depth != 0 {
		t.Errorf("request: %+v", a)
	}
	if b.Parent != a.ID || b.Depth != 1 || b.State != format.Failed || b.Failure != "no mount" {
		t.Errorf("step: %+v", b)
	}
	if c.Parent != b.ID || c.Depth != 2 || c.State != format.Cancelled || c.Number != -1 {
		t.Errorf("SQL: %+v", c)
	}
	if d.State != format.Open || d.Announced {
		t.Errorf("stream: %+v", d)
	}
}

func TestDisabled(t *testing.T) {
	r := Open(Config{Root: filepath.Join(t.TempDir(), "none"), Process: Beginner})
	if r != nil {
		t.Fatal("tracing is enabled without its folder")
	}
	ctx := t.Context()
	allocated := testing.AllocsPerRun(100, func() {
		_, span := r.Begin(ctx, Request, "get_time")
		span.Note("CSAPI", 1)
		span.End(nil)
		r.Request(time.Time{}, "CSAPI", "get_time", 1).End(nil)
	})
	if allocated != 0 || r.Context(ctx) != ctx {
		t.Errorf("%v allocations", allocated)
	}
	r.Close()
}

// TestLateEnd: an operation that has ended is not ended again, nor another in its place.
func TestLateEnd(t *testing.T) {
	root := t.TempDir()
	r := Open(Config{Root: root, Process: Beginner, Warn: t.Errorf, Reserve: -1})
	first := r.Request(time.Now(), "CSAPI", "first", 1)
	first.EndAfter(time.Second, nil)
	second := r.Request(time.Now(), "CSAPI", "second", 1)
	first.Note("late", 2)
	first.End(errors.New("late"))
	second.End(nil)
	r.Close()
	var requests []format.Event
	for _, e := range events(t, filepath.Join(root, latestName, Beginner)) {
		if e.Kind == format.Request {
			requests = append(requests, e)
		}
	}
	if len(requests) != 2 || requests[0].Duration != int64(time.Second) || requests[1].Name != "second" || requests[1].State != format.Done || requests[1].Detail != "CSAPI" {
		t.Errorf("%+v", requests)
	}
}

// TestRequestAllocatesNothing, but for the blocks that hold many of them.
func TestRequestAllocatesNothing(t *testing.T) {
	r := Open(Config{Root: t.TempDir(), Process: Beginner, Warn: t.Errorf, Reserve: -1})
	defer r.Close()
	now := time.Now()
	if n := testing.AllocsPerRun(10_000, func() { r.Request(now, "CSAPI", "get_time", 1).End(nil) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// benchmark measures a request as server-hub and server-main record it: those read the
// clock at its beginning anyway.
func benchmark(b *testing.B, r *Recorder) {
	b.ReportAllocs()
	now := time.Now()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			r.Request(now, "CSAPI", "get_time", 1).EndAfter(time.Microsecond, nil)
		}
	})
}

func BenchmarkDisabled(b *testing.B) { benchmark(b, nil) }

func BenchmarkEnabled(b *testing.B) {
	r := Open(Config{Root: b.TempDir(), Process: Beginner, Warn: b.Errorf})
	defer r.Close()
	benchmark(b, r)
}

package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestLast(t *testing.T) {
	j := New(DefaultLimit)
	dir := t.TempDir()
	if err := j.Attach(dir); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		j.Append("a", "x")
		j.Append("b", "y")
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	for lines, first := range map[int]uint64{0: 2, 1: 200, 7: 188, 1000: 2} {
		var got []uint64
		err := Last(dir, Query{Lines: lines, Units: []string{"b"}}, func(r Record) error { got = append(got, r.Number); return nil })
		if err != nil || got[0] != first || got[len(got)-1] != 200 || lines > 0 && len(got) != min(lines, 100) {
			t.Errorf("%d lines: %v, %v", lines, err, got)
		}
	}
}

// TestQuery asks many segments, with and without their summaries.
func TestQuery(t *testing.T) {
	dir := t.TempDir()
	begin := time.Unix(1_700_000_000, 0)
	j := New(DefaultLimit)
	j.dir = dir
	for i := range 50 {
		now := begin.Add(time.Duration(i) * segmentTime * 2) // a segment of its own for each
		j.now = func() time.Time { return now }
		j.Append("often", fmt.Sprint(i))
		if i%10 == 3 {
			j.Append("rarely", fmt.Sprint(i))
		}
		if err := j.write(); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.endSegment(); err != nil {
		t.Fatal(err)
	}
	at := func(i int) time.Time { return begin.Add(time.Duration(i) * segmentTime * 2) }
	for range 2 { // then without them
		for _, test := range []struct {
			query Query
			want  string
		}{
			{Query{Lines: 2, Units: []string{"rarely"}}, "33 43"},
			{Query{Since: at(47)}, "47 48 49"},
			{Query{Until: at(1)}, "0 1"},
			{Query{Since: at(10), Until: at(20), Units: []string{"rarely"}}, "13"},
			{Query{Lines: 1, Units: []string{"nobody"}}, ""},
			{Query{Boot: 2}, ""},
			{Query{Lines: 1, Wanted: func(r Record) bool { return r.Text == "7" }}, "7"},
		} {
			var got []string
			if err := Last(dir, test.query, func(r Record) error { got = append(got, r.Text); return nil }); err != nil {
				t.Fatal(err)
			}
			if text := strings.Join(got, " "); text != test.want {
				t.Errorf("%+v: %q, want %q", test.query, text, test.want)
			}
		}
		files, err := filepath.Glob(filepath.Join(dir, "*"+summaryEnd))
		if err != nil || len(files) != 50 {
			t.Fatalf("%d summaries, %v", len(files), err)
		}
		for _, f := range files {
			if err := os.WriteFile(f, []byte("garbage"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	// They are written anew at the next start.
	next := New(DefaultLimit)
	if err := next.Attach(dir); err != nil {
		t.Fatal(err)
	}
	if err := next.Close(); err != nil {
		t.Fatal(err)
	}
	segments, err := Segments(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range segments {
		if s, err := summaryOf(path, false); err != nil || s == nil {
			t.Errorf("%s: %v, %v", path, s, err)
		}
	}
}

func FuzzSummary(f *testing.F) {
	f.Add([]byte(`{"size":0,"early":1,"late":2,"boots":[{"number":1}],"units":{"u":1}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		path := segmentPath(t.TempDir(), 1)
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.WriteFile(summaryPath(path), text, 0o600)); err != nil {
			t.Fatal(err)
		}
		q := Query{Units: []string{"u"}, Since: time.Unix(1, 0), Boot: 1}
		q.mayBeIn(path)
		if _, err := Boots(filepath.Dir(path)); err != nil {
			t.Fatal(err)
		}
	})
}

// BenchmarkLast looks for the last lines of a unit that says little, in a journal of 256 MiB.
func BenchmarkLast(b *testing.B) {
	dir := b.TempDir()
	j := New(1 << 40)
	j.dir = dir
	j.Append("rarely", "x")
	for j.next < 64*SegmentSize/600 {
		for range 1000 {
			j.Append("often", strings.Repeat("y", 500))
		}
		if err := j.write(); err != nil {
			b.Fatal(err)
		}
	}
	j.Append("rarely", "x")
	if err := errors.Join(j.write(), j.endSegment()); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		lines := 0
		if err := Last(dir, Query{Lines: 2, Units: []string{"rarely"}}, func(Record) error { lines++; return nil }); err != nil || lines != 2 {
			b.Fatal(lines, err)
		}
	}
}

func TestKernel(t *testing.T) {
	f, err := os.Open("/dev/kmsg")
	if err != nil {
		t.Skip("the messages of the kernel may not be read here")
	}
	f.Close()
	lines, err := Kernel()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lines {
		if l.Level < 0 || l.Level > 7 {
			t.Errorf("%+v", l)
		}
	}
}

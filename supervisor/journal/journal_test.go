package journal

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// readAll returns the records of a folder in order.
func readAll(t *testing.T, dir string) []Record {
	t.Helper()
	segments, err := Segments(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []Record
	for _, path := range segments {
		if err := ReadSegment(path, func(r Record) error { all = append(all, r); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func TestEarlyLinesAndNumbersAcrossBoots(t *testing.T) {
	dir := t.TempDir()
	for boot := range 3 {
		j := New(DefaultLimit)
		j.Append("kernel", fmt.Sprintf("early of boot %d", boot))
		if err := j.Attach(dir); err != nil {
			t.Fatal(err)
		}
		j.Append("unit", "bad utf-8: \xff; <&>")
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
	all := readAll(t, dir)
	if len(all) != 6 {
		t.Fatalf("%d records", len(all))
	}
	for i, r := range all {
		if r.Number != uint64(i+1) {
			t.Errorf("record %d has number %d", i, r.Number)
		}
	}
	if all[1].Text != "bad utf-8: \uFFFD; <&>" || all[4].Text != "early of boot 2" {
		t.Errorf("records %+v", all)
	}
}

// TestTornTail cuts a segment at every byte: what is whole is read, what comes after the
// next boot is too.
func TestTornTail(t *testing.T) {
	dir := t.TempDir()
	j := New(DefaultLimit)
	if err := j.Attach(dir); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		j.Append("u", fmt.Sprintf("line %d", i))
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	path := segmentPath(dir, 1)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for cut := range len(whole) {
		torn := t.TempDir()
		// A power cut may also leave zeros where the size was written before the data.
		data := append(append([]byte{}, whole[:cut]...), make([]byte, 100)...)
		if err := os.WriteFile(segmentPath(torn, 1), data, 0o600); err != nil {
			t.Fatal(err)
		}
		j := New(DefaultLimit)
		if err := j.Attach(torn); err != nil {
			t.Fatal(err)
		}
		j.Append("u", "after")
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		all := readAll(t, torn)
		complete := bytes.Count(whole[:cut], []byte("\n"))
		if len(all) != complete+1 || all[complete].Text != "after" {
			t.Fatalf("cut at %d: %d records of %d", cut, len(all), complete+1)
		}
	}
}

func TestBounds(t *testing.T) {
	dir := t.TempDir()
	const limit = 3 * SegmentSize
	j := New(limit)
	if err := j.Attach(dir); err != nil {
		t.Fatal(err)
	}
	line := strings.Repeat("x", MaxLine+100)
	for range 5 * SegmentSize / MaxLine {
		j.Append("u", line)
		if err := j.write(); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	var total int64
	segments, err := Segments(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range segments {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() > SegmentSize {
			t.Errorf("%s has %d bytes", path, info.Size())
		}
		total += info.Size()
	}
	if total > limit || len(segments) < 2 {
		t.Errorf("%d bytes in %d segments", total, len(segments))
	}
	for _, r := range readAll(t, dir) {
		if len(r.Text) != MaxLine {
			t.Fatalf("a text of %d bytes", len(r.Text))
		}
	}
}

// TestFlood: what does not fit in the queue is counted, and the count is recorded.
func TestFlood(t *testing.T) {
	dir := t.TempDir()
	j := New(DefaultLimit)
	const lines = 3 * queueLimit / 1000
	for range lines {
		j.Append("u", strings.Repeat("y", 1000))
	}
	if err := j.Attach(dir); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	all := readAll(t, dir)
	last := all[len(all)-1]
	want := fmt.Sprintf("%d lines were dropped: too many at once", lines-(len(all)-1))
	if last.Unit != "journal" || last.Text != want {
		t.Errorf("last record %+v, want %q", last, want)
	}
}

// TestWriteFailure: /dev/full is a disk without space.
func TestWriteFailure(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skipf("no /dev/full: %v", err)
	}
	dir := t.TempDir()
	j := New(DefaultLimit)
	if err := j.Attach(dir); err != nil {
		t.Fatal(err)
	}
	j.writer.Lock()
	j.file = full
	j.writer.Unlock()
	j.Append("u", "lost")
	j.Append("u", "lost too")
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		j.mu.Lock()
		dropped := j.dropped
		j.mu.Unlock()
		if dropped == 2 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d lines were dropped", dropped)
		}
	}
	// Space is back.
	j.writer.Lock()
	j.file = nil
	j.writer.Unlock()
	j.Append("u", "kept")
	if err := j.Flush(); err != nil {
		t.Fatal(err)
	}
	j.Append("u", "kept too")
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, r := range readAll(t, dir) {
		texts = append(texts, r.Text)
	}
	got := strings.Join(texts, "; ")
	if want := "kept; 2 lines were dropped: cannot write journal: write /dev/full: no space left on device; kept too"; got != want &&
		got != "kept; kept too; 2 lines were dropped: cannot write journal: write /dev/full: no space left on device" {
		t.Errorf("records %q", got)
	}
}

func TestFollowAndTail(t *testing.T) {
	j := New(DefaultLimit)
	j.Append("u", "before")
	records, first, end := j.Follow()
	j.Append("u", "after")
	if r := <-records; r.Number != first || r.Text != "after" {
		t.Errorf("record %+v, first %d", r, first)
	}
	for range followQueue + 1 {
		j.Append("v", "flood")
	}
	count := 0
	for range records { // closed: the reader fell behind
		count++
	}
	if count != followQueue {
		t.Errorf("%d records", count)
	}
	end()
	if tail := j.Tail("u", 1); len(tail) != 1 || tail[0].Text != "after" {
		t.Errorf("tail %+v", tail)
	}
	if tail := j.Tail("v", 100); len(tail) != tailLength {
		t.Errorf("a tail of %d", len(tail))
	}
}

func TestParseKernel(t *testing.T) {
	line, ok := parseKernel("6,339,5140900,-;NET: Registered protocol family 10\n SUBSYSTEM=net\n")
	if !ok || line.Level != 6 || line.Facility != 0 || line.Since != 5140900*time.Microsecond || line.Text != "NET: Registered protocol family 10" {
		t.Errorf("%+v, %v", line, ok)
	}
	line, ok = parseKernel("13,1,0,-;walt: hello")
	if !ok || line.Level != 5 || line.Facility != 1 {
		t.Errorf("%+v, %v", line, ok)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"n":1,"t":2,"u":"a","m":"b"}` + "\n{\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := Read(bytes.NewReader(data), func(r Record) error {
			if r.Number == 0 {
				t.Fatal("a record without number")
			}
			_, err := json.Marshal(r)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		parseKernel(string(data))
	})
}

// BenchmarkAppend compares the journal with the same lines written to a plain file.
func BenchmarkAppend(b *testing.B) {
	const line = "a line of usual length that some unit has written to its output"
	b.Run("journal", func(b *testing.B) {
		j := New(DefaultLimit)
		if err := j.Attach(b.TempDir()); err != nil {
			b.Fatal(err)
		}
		for i := 0; b.Loop(); i++ {
			j.Append("unit", line)
			if i%4096 == 0 {
				if err := j.write(); err != nil {
					b.Fatal(err)
				}
			}
		}
		if err := j.Close(); err != nil {
			b.Fatal(err)
		}
	})
	b.Run("file", func(b *testing.B) {
		f, err := os.Create(filepath.Join(b.TempDir(), "plain"))
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		for b.Loop() {
			if _, err := f.WriteString(line + "\n"); err != nil {
				b.Fatal(err)
			}
		}
	})
}

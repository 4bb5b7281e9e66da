package journal

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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

// TestTornTail cuts a segment at every byte of its last two records: what is whole is read, what
// comes after the next boot is too.
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
	for cut := bytes.IndexByte(whole, '\n'); cut < len(whole); cut++ {
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
		if info, err := os.Stat(segmentPath(torn, 1)); err == nil && bytes.Contains(whole[:cut], []byte("\n")) && info.Size() > int64(cut) {
			t.Fatalf("cut at %d: the segment has %d bytes", cut, info.Size())
		}
		all := readAll(t, torn)
		complete := bytes.Count(whole[:cut], []byte("\n"))
		if len(all) != complete+1 || all[complete].Text != "after" {
			t.Fatalf("cut at %d: %d records of %d", cut, len(all), complete+1)
		}
	}
}

// TestChanged changes each byte of the last record: it alone is lost, never read wrongly.
func TestChanged(t *testing.T) {
	dir := t.TempDir()
	j := New(DefaultLimit)
	if err := j.Attach(dir); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		j.Append("u", fmt.Sprintf("<3>line %d", i))
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(segmentPath(dir, 1))
	if err != nil {
		t.Fatal(err)
	}
	last := bytes.LastIndexByte(whole[:len(whole)-1], '\n') + 1
	for at := last; at < len(whole); at++ {
		for _, change := range []byte{1, 0x20, 0xff} {
			changed := bytes.Clone(whole)
			changed[at] ^= change
			var texts []string
			if err := Read(bytes.NewReader(changed), func(r Record) error { texts = append(texts, r.Text); return nil }); err != nil {
				t.Fatal(err)
			}
			// The digits of the checksum may be large.
			if got := strings.Join(texts, ", "); got != "line 0, line 1" && !strings.EqualFold(string(changed), string(whole)) {
				t.Fatalf("byte %d: %s", at, got)
			}
		}
	}
}

// TestRate: a unit that says too much loses lines, and the journal says how many; another unit
// loses none.
func TestRate(t *testing.T) {
	dir := t.TempDir()
	j := New(DefaultLimit)
	now := time.Now()
	j.now = func() time.Time { return now }
	j.Bound(Bounds{Size: DefaultLimit, Rate: 10, Burst: 20})
	for i := range 100 {
		j.Append("loud", fmt.Sprint(i))
		if i%10 == 0 {
			j.Append("quiet", fmt.Sprint(i))
		}
	}
	now = now.Add(time.Second)
	for range 20 {
		j.Append("loud", "later")
	}
	if err := j.Attach(dir); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	lines := map[string]int{}
	var told Record
	for _, r := range readAll(t, dir) {
		lines[r.Unit]++
		if r.Priority == "warning" {
			told = r
		}
	}
	if lines["quiet"] != 10 || lines["loud"] != 20+10+1 {
		t.Errorf("lines %v", lines)
	}
	if want := "90 lines of this unit were dropped: more than 10 a second"; told.Unit != "loud" || told.Text != want {
		t.Errorf("record %+v, want %q", told, want)
	}
}

func TestAge(t *testing.T) {
	dir := t.TempDir()
	for boot := range 3 {
		j := New(DefaultLimit)
		j.Bound(Bounds{Size: DefaultLimit, Age: time.Hour})
		if err := j.Attach(dir); err != nil {
			t.Fatal(err)
		}
		j.Append("u", fmt.Sprint(boot))
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		if boot == 0 {
			old := time.Now().Add(-2 * time.Hour)
			if err := os.Chtimes(segmentPath(dir, 1), old, old); err != nil {
				t.Fatal(err)
			}
		}
	}
	if all := readAll(t, dir); len(all) != 2 || all[0].Text != "1" || all[0].Boot != 2 {
		t.Errorf("records %+v", all)
	}
	if _, err := os.Stat(summaryPath(segmentPath(dir, 1))); !os.IsNotExist(err) {
		t.Errorf("the summary is left: %v", err)
	}
}

// TestSegmentTime: a segment that gets no lines is ended, so that it can get too old.
func TestSegmentTime(t *testing.T) {
	dir := t.TempDir()
	j := New(DefaultLimit)
	now := time.Now()
	j.now = func() time.Time { return now }
	j.dir = dir // without its writer
	for range 3 {
		j.Append("u", "x")
		if err := j.write(); err != nil {
			t.Fatal(err)
		}
		now = now.Add(segmentTime / 2 * 3)
	}
	if segments, err := Segments(dir); err != nil || len(segments) != 3 {
		t.Errorf("segments %v, %v", segments, err)
	}
}

func TestPastAndTimes(t *testing.T) {
	dir := t.TempDir()
	for boot := range 2 {
		j := New(DefaultLimit)
		if boot == 1 {
			j.AppendPast(time.Unix(1e9, 0), "pstore", "<2>of the last boot")
		}
		j.Append("u", "now")
		j.AppendAt(time.Now().Add(-time.Hour), "u", "", "an hour ago")
		if err := j.Attach(dir); err != nil {
			t.Fatal(err)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
	all := readAll(t, dir)
	past := all[2]
	if past.Boot != 1 || past.Since != 0 || past.Priority != "crit" || past.Text != "of the last boot" || all[3].Boot != 2 {
		t.Errorf("records %+v", all)
	}
	if now, ago := all[3].Since, all[4].Since; now == 0 || ago >= now || ago != 0 && now-ago < int64((time.Hour-time.Minute)/time.Microsecond) {
		t.Errorf("since boot: %d, %d", now, ago)
	}
	boots, err := Boots(dir)
	if err != nil || len(boots) != 2 || boots[0].Lines != 3 || boots[1].Lines != 2 {
		t.Errorf("boots %+v, %v", boots, err)
	}
}

// TestFullDisk: a disk without space costs lines, which are counted, and nothing else.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("a small disk cannot be mounted: %v", err)
	}
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
	j := New(DefaultLimit)
	if err := j.Attach(dir); err != nil {
		t.Fatal(err)
	}
	failed := false
	for range 200 {
		j.Append("u", strings.Repeat("z", 4000))
		failed = errors.Is(j.Flush(), unix.ENOSPC) || failed
	}
	if !failed {
		t.Fatal("the disk did not get full")
	}
	before := readAll(t, dir)
	if err := os.WriteFile(segmentPath(dir, 1), nil, 0o600); err != nil { // somebody makes room
		t.Fatal(err)
	}
	j.Append("u", "room")
	_ = j.Flush() // counts what was dropped, unless that was written before
	j.Append("u", "again")
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, r := range readAll(t, dir) {
		text.WriteString(r.Text + "\n")
	}
	if !strings.Contains(text.String(), "lines were dropped: cannot write journal") || !strings.Contains(text.String(), "again\n") || len(before) == 0 {
		t.Errorf("%d records before; after:\n%.500s", len(before), text.String())
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
	j.file, j.here, j.begun = full, &summary{}, time.Now()
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
	f.Add(append(appendRecord(nil, Record{Number: 1, Micros: 2, Unit: "a", Text: "b"}), "{\n"...))
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := Read(bytes.NewReader(data), func(r Record) error {
			if r.Number == 0 {
				t.Fatal("a record without number")
			}
			again, ok := decode(appendRecord(nil, r))
			if !ok || again != r {
				t.Fatalf("%+v becomes %+v", r, again)
			}
			return nil
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
	b.Run("rest", restingMemory)
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

// restingMemory measures what a journal holds that has taken many lines of 40 units.
func restingMemory(b *testing.B) {
	memory := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	var held uint64
	for b.Loop() {
		before := memory()
		j := New(DefaultLimit)
		j.Bound(Standard)
		if err := j.Attach(b.TempDir()); err != nil {
			b.Fatal(err)
		}
		for i := range 100_000 {
			j.Append(fmt.Sprint("unit", i%40), strings.Repeat("x", 100))
		}
		if err := j.Flush(); err != nil {
			b.Fatal(err)
		}
		held = memory() - before
		if err := j.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(held)/1024, "KiB-at-rest")
}

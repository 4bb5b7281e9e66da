package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/waltos/waltos/services/atomicfile"
)

// Ends of the names of a segment and of its summary.
const (
	segmentEnd = ".jsonl"
	summaryEnd = ".summary"
)

// maxSummary bounds what is read of a summary.
const maxSummary = 1 << 20

func segmentPath(dir string, first uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%016d"+segmentEnd, first))
}

// Segments returns the paths of the segments of a folder, oldest first.
func Segments(dir string) ([]string, error) {
	paths, err := filepath.Glob(filepath.Join(dir, strings.Repeat("[0-9]", 16)+segmentEnd))
	if err != nil {
		return nil, fmt.Errorf("cannot list journal segments: %w", err)
	}
	slices.Sort(paths)
	return paths, nil
}

// ReadSegment is [Read] for the file of a segment.
func ReadSegment(path string, each func(Record) error) error {
	return readSegment(path, func([]byte) bool { return true }, each)
}

func readSegment(path string, maybe func(line []byte) bool, each func(Record) error) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil // pruned meanwhile
	}
	if err != nil {
		return fmt.Errorf("cannot read journal: %w", err)
	}
	defer f.Close()
	_, err = read(f, maybe, each)
	return err
}

// Boot is what is known of a boot.
type Boot struct {
	Number uint64    `json:"number"`
	First  time.Time `json:"first"` // line
	Last   time.Time `json:"last"`
	Lines  int       `json:"lines"`
}

// summary tells what a segment holds, so that most need not be read: it is written beside a
// segment that has ended.
type summary struct {
	Size  int64          `json:"size"` // of the segment that it is of
	Early int64          `json:"early"`
	Late  int64          `json:"late"` // microseconds; clocks are set, so not always of the last record
	Boots []Boot         `json:"boots"`
	Units map[string]int `json:"units"` // lines
}

func (s *summary) add(r Record) {
	if len(s.Boots) == 0 {
		s.Early, s.Late, s.Units = r.Micros, r.Micros, map[string]int{}
	}
	s.Early, s.Late = min(s.Early, r.Micros), max(s.Late, r.Micros)
	s.Units[r.Unit]++
	s.Boots = count(s.Boots, Boot{Number: r.Boot, First: r.Time(), Last: r.Time(), Lines: 1})
}

// count adds what is known of a boot to a list.
func count(boots []Boot, b Boot) []Boot {
	if n := len(boots); n > 0 && boots[n-1].Number == b.Number {
		boots[n-1].Last = b.Last
		boots[n-1].Lines += b.Lines
		return boots
	}
	return append(boots, b)
}

func summaryPath(segment string) string { return strings.TrimSuffix(segment, segmentEnd) + summaryEnd }

// store writes the summary of a segment. Without it the segment is only read more often.
func (s *summary) store(segment string) {
	text, err := json.Marshal(s)
	if err == nil {
		err = atomicfile.Write(summaryPath(segment), text, 0o640)
	}
	if err != nil {
		_ = os.Remove(summaryPath(segment))
	}
}

// summaryOf returns what a segment holds: from its summary if that is of the segment as it
// is, or by reading it all, if need be.
func summaryOf(segment string, read bool) (s *summary, err error) {
	info, err := os.Stat(segment)
	if err != nil {
		return nil, fmt.Errorf("cannot read journal: %w", err)
	}
	s = &summary{}
	f, err := os.Open(summaryPath(segment))
	if err == nil {
		defer f.Close()
		if small, err := f.Stat(); err == nil && small.Size() <= maxSummary && json.NewDecoder(f).Decode(s) == nil && s.Size == info.Size() {
			return s, nil
		}
	}
	if !read {
		return nil, nil
	}
	s = &summary{Size: info.Size()}
	return s, ReadSegment(segment, func(r Record) error { s.add(r); return nil })
}

// Boots returns the boots that a folder knows, the oldest first.
func Boots(dir string) ([]Boot, error) {
	segments, err := Segments(dir)
	if err != nil {
		return nil, err
	}
	var boots []Boot
	for _, path := range segments {
		s, err := summaryOf(path, true)
		if errors.Is(err, os.ErrNotExist) {
			continue // pruned meanwhile
		}
		if err != nil {
			return nil, err
		}
		for _, b := range s.Boots {
			boots = count(boots, b)
		}
	}
	return boots, nil
}

// mend cuts what a power cut left torn at the end of the last segment, and writes the summaries
// that are missing. It returns the last record; none has number 0.
func mend(dir string) (last Record, err error) {
	segments, err := Segments(dir)
	if err != nil {
		return last, err
	}
	for _, path := range slices.Backward(segments) {
		if s, err := summaryOf(path, false); err == nil && s != nil && last.Number > 0 {
			continue
		}
		r, err := mendSegment(path)
		if err != nil {
			return last, err
		}
		if last.Number == 0 {
			last = r
		}
	}
	return last, nil
}

func mendSegment(path string) (last Record, err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return last, fmt.Errorf("cannot mend journal: %w", err)
	}
	defer f.Close()
	s := &summary{}
	s.Size, err = read(f, func([]byte) bool { return true }, func(r Record) error { last = r; s.add(r); return nil })
	if err != nil {
		return last, err
	}
	// Even truncating nothing would make the segment younger.
	info, err := f.Stat()
	if err == nil && info.Size() != s.Size {
		err = f.Truncate(s.Size)
	}
	if err != nil {
		return last, fmt.Errorf("cannot mend journal: %w", err)
	}
	s.store(path)
	return last, nil
}

// prune removes the oldest segments: those whose last line is older than age (0: however old),
// and so many that there is room for one more below the limit.
func prune(dir string, limit int64, oldest time.Time) error {
	segments, err := Segments(dir)
	if err != nil {
		return err
	}
	var total int64
	files := make([]os.FileInfo, len(segments))
	for i, path := range segments {
		if files[i], err = os.Stat(path); err != nil {
			return fmt.Errorf("cannot look at journal segment: %w", err)
		}
		total += files[i].Size()
	}
	for i, path := range segments {
		if total+SegmentSize <= limit && !files[i].ModTime().Before(oldest) {
			break
		}
		if err := errors.Join(os.Remove(path), removed(summaryPath(path))); err != nil {
			return fmt.Errorf("cannot remove old journal segment: %w", err)
		}
		total -= files[i].Size()
	}
	return nil
}

func removed(path string) error {
	if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

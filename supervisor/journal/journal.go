// Package journal keeps what units and the kernel say: one record per line, in
// append-only segment files of bounded size and number.
//
// Format: segment NNNNNNNNNNNNNNNN.jsonl holds JSON objects, one a line, {"n": number,
// "b": boot, "t": microseconds since 1970, "u": unit, "p": priority, "m": text}; its name
// is the number of its first record. Numbers of records grow by one over the life of the
// journal, those of boots too. The priority is a name of [Priorities]; none means "info". Each boot begins a
// new segment, so that what a power cut tore is at the end of one, where a line that
// does not parse is skipped.
//
// Writers never wait for the disk: lines wait in a bounded queue, from the first moment
// of the boot, and what does not fit or cannot be written is counted, and the count is
// recorded once writing works again.
package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Bounds of a Journal.
const (
	MaxLine      = 16 << 10 // of the text of a record; the rest is cut off
	SegmentSize  = 4 << 20
	DefaultLimit = 64 << 20 // of all segments
	queueLimit   = 1 << 20  // bytes of text waiting to be written
	tailLength   = 12       // records of each unit kept in memory
	followQueue  = 4096     // records that a follower may be behind
	batchTime    = 100 * time.Millisecond
	syncTime     = time.Second
)

// Record is one line of a unit.
type Record struct {
	Number   uint64 `json:"n"`
	Boot     uint64 `json:"b,omitempty"`
	Micros   int64  `json:"t"` // since 1970
	Unit     string `json:"u"`
	Priority string `json:"p,omitempty"`
	Text     string `json:"m"`
}

// Info is the priority of lines that have none.
const Info = "info"

// Priorities are those of syslog(3), the most urgent first.
var Priorities = []string{"emerg", "alert", "crit", "err", "warning", "notice", Info, "debug"}

// Urgency is the place of the record's priority among [Priorities]: 0 is the most urgent.
func (r Record) Urgency() int {
	if i := slices.Index(Priorities, r.Priority); i >= 0 {
		return i
	}
	return slices.Index(Priorities, Info)
}

// Time returns when the line was received.
func (r Record) Time() time.Time { return time.UnixMicro(r.Micros) }

// Journal receives records. Its methods may be called from any goroutine.
type Journal struct {
	limit int64
	now   func() time.Time

	mu        sync.Mutex
	next      uint64
	boot      uint64
	queue     []Record
	queued    int // bytes
	dropped   int
	cause     string // of the drops
	tails     map[string][]Record
	followers map[chan Record]struct{}
	wake      chan struct{}

	writer sync.Mutex // one write at a time
	dir    string
	file   *os.File
	size   int64
	dirty  bool
	full   bool // the last write failed

	stop chan struct{}
	done chan struct{}
}

// New returns a journal that keeps its records in memory until [Journal.Attach]. limit
// bounds the segments together, in bytes.
func New(limit int64) *Journal {
	return &Journal{
		limit: limit, now: time.Now, next: 1, boot: 1, tails: map[string][]Record{}, followers: map[chan Record]struct{}{},
		wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
	}
}

// Append adds a line of a unit, received now. It never waits. A priority as of
// sd-daemon(3), "<3>" before the text, is taken.
func (j *Journal) Append(unit, text string) {
	priority, text := priorityOf(text)
	j.AppendAt(j.now(), unit, priority, text)
}

// priorityOf takes the priority from before a text, where there is one.
func priorityOf(text string) (priority, rest string) {
	if len(text) > 3 && text[0] == '<' && text[1] >= '0' && text[1] <= '7' && text[2] == '>' {
		return Priorities[text[1]-'0'], text[3:]
	}
	return "", text
}

// AppendPast adds a line of the boot before this one.
func (j *Journal) AppendPast(at time.Time, unit, text string) {
	priority, text := priorityOf(text)
	j.append(at, 1, unit, priority, text)
}

// AppendAt adds a line of that time and priority.
func (j *Journal) AppendAt(at time.Time, unit, priority, text string) {
	j.append(at, 0, unit, priority, text)
}

// append adds a line of so many boots ago.
func (j *Journal) append(at time.Time, ago uint64, unit, priority, text string) {
	if len(text) > MaxLine {
		text = text[:MaxLine]
	}
	if priority == Info {
		priority = ""
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	r := Record{
		Number: j.next, Boot: j.boot - ago, Micros: at.UnixMicro(), Unit: unit, Priority: priority,
		Text: strings.ToValidUTF8(text, "\uFFFD"),
	}
	tail := append(j.tails[unit], r)
	if len(tail) > tailLength {
		tail = slices.Delete(tail, 0, len(tail)-tailLength)
	}
	j.tails[unit] = tail
	if j.queued+len(text) > queueLimit {
		j.dropped++
		if j.cause == "" {
			j.cause = "too many at once"
		}
		return
	}
	j.next++
	j.queue = append(j.queue, r)
	j.queued += len(text)
	for c := range j.followers {
		select {
		case c <- r:
		default:
			delete(j.followers, c) // it fell behind
			close(c)
		}
	}
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

// Tail returns the last lines of a unit, at most n of those that are kept in memory.
func (j *Journal) Tail(unit string, n int) []Record {
	j.mu.Lock()
	defer j.mu.Unlock()
	tail := j.tails[unit]
	return slices.Clone(tail[max(0, len(tail)-n):])
}

// Follow returns a channel of all records from now on and the number of the first. The
// channel is closed when its reader is too slow. The caller calls the function at the
// end.
func (j *Journal) Follow() (records <-chan Record, first uint64, end func()) {
	c := make(chan Record, followQueue)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.followers[c] = struct{}{}
	return c, j.next, func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		if _, ok := j.followers[c]; ok {
			delete(j.followers, c)
			close(c)
		}
	}
}

// Attach begins to write to a folder, first what was kept in memory. Records are
// numbered on from the last one found there.
func (j *Journal) Attach(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("cannot open journal: %w", err)
	}
	last, err := lastRecord(dir)
	if err != nil {
		return err
	}
	j.mu.Lock()
	for i := range j.queue {
		j.queue[i].Number += last.Number
		j.queue[i].Boot += last.Boot
	}
	j.next += last.Number
	j.boot += last.Boot
	j.mu.Unlock()
	j.writer.Lock()
	j.dir = dir
	j.writer.Unlock()
	go j.work()
	return nil
}

// Close writes what is queued and ends the journal.
func (j *Journal) Close() error {
	j.writer.Lock()
	attached := j.dir != ""
	j.writer.Unlock()
	if !attached {
		return nil
	}
	close(j.stop)
	<-j.done
	err := j.Flush()
	j.writer.Lock()
	defer j.writer.Unlock()
	if j.file != nil {
		err = errors.Join(err, j.file.Close())
		j.file = nil
	}
	j.dir = ""
	return err
}

func (j *Journal) work() {
	defer close(j.done)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-j.stop:
			return
		case <-j.wake:
		}
		// Lines come in bursts; one write for many.
		timer.Reset(batchTime)
		select {
		case <-j.stop:
			return
		case <-timer.C:
		}
		_ = j.write() // counted and recorded
		timer.Reset(syncTime - batchTime)
		select {
		case <-j.stop:
			return
		case <-j.wake:
			_ = j.write()
			<-timer.C
			_ = j.write()
		case <-timer.C:
		}
		j.sync()
	}
}

// Flush writes all records so far and has the disk keep them.
func (j *Journal) Flush() error {
	err := j.write()
	j.sync()
	return err
}

func (j *Journal) sync() {
	j.writer.Lock()
	defer j.writer.Unlock()
	if j.dirty && j.file != nil {
		_ = unix.Fdatasync(int(j.file.Fd()))
		j.dirty = false
	}
}

// write moves the queue to the disk. What cannot be written is dropped and counted.
func (j *Journal) write() error {
	j.writer.Lock()
	defer j.writer.Unlock()
	if j.dir == "" {
		return nil
	}
	j.mu.Lock()
	batch := j.queue
	j.queue, j.queued = nil, 0
	dropped, cause := j.dropped, j.cause
	if dropped > 0 && !j.full {
		batch = append(batch, Record{
			Number: j.next, Boot: j.boot, Micros: j.now().UnixMicro(), Unit: "journal", Priority: "warning",
			Text: fmt.Sprintf("%d lines were dropped: %s", dropped, cause),
		})
		j.next++
		j.dropped, j.cause = 0, ""
	}
	j.mu.Unlock()
	if len(batch) == 0 {
		return nil
	}
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	for _, r := range batch {
		if err := encoder.Encode(r); err != nil {
			return fmt.Errorf("cannot encode a journal record: %w", err)
		}
	}
	err := j.store(text.Bytes(), batch[0].Number)
	j.mu.Lock()
	j.full = err != nil
	if err != nil {
		j.dropped += len(batch)
		j.cause = err.Error()
	}
	j.mu.Unlock()
	return err
}

// store appends to the current segment, or begins one. A partial write is undone, so
// that no torn line stands before a good one.
func (j *Journal) store(data []byte, first uint64) error {
	if j.file != nil && j.size+int64(len(data)) > SegmentSize {
		j.file.Close()
		j.file = nil
	}
	if j.file == nil {
		if err := j.prune(); err != nil {
			return err
		}
		// A segment of that name would hold nothing but the torn beginning of this record.
		f, err := os.OpenFile(segmentPath(j.dir, first), os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o640)
		if err != nil {
			return fmt.Errorf("cannot begin journal segment: %w", err)
		}
		j.file, j.size = f, 0
	}
	n, err := j.file.Write(data)
	if err != nil {
		if n > 0 {
			_ = j.file.Truncate(j.size)
		}
		return fmt.Errorf("cannot write journal: %w", err)
	}
	j.size += int64(n)
	j.dirty = true
	return nil
}

// prune removes the oldest segments, so that a new one has its place below the limit.
func (j *Journal) prune() error {
	segments, err := Segments(j.dir)
	if err != nil {
		return err
	}
	var total int64
	sizes := make([]int64, len(segments))
	for i, path := range segments {
		if info, err := os.Stat(path); err == nil {
			sizes[i] = info.Size()
		}
		total += sizes[i]
	}
	for i, path := range segments {
		if total+SegmentSize <= j.limit {
			break
		}
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("cannot remove old journal segment: %w", err)
		}
		total -= sizes[i]
	}
	return nil
}

func segmentPath(dir string, first uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%016d.jsonl", first))
}

// Segments returns the paths of the segments of a folder, oldest first.
func Segments(dir string) ([]string, error) {
	paths, err := filepath.Glob(filepath.Join(dir, strings.Repeat("[0-9]", 16)+".jsonl"))
	if err != nil {
		return nil, fmt.Errorf("cannot list journal segments: %w", err)
	}
	slices.Sort(paths)
	return paths, nil
}

// lastRecord returns the last record of a folder; none has number 0.
func lastRecord(dir string) (last Record, err error) {
	segments, err := Segments(dir)
	if err != nil {
		return last, err
	}
	for _, path := range slices.Backward(segments) {
		if err := ReadSegment(path, func(r Record) error { last = r; return nil }); err != nil {
			return last, err
		}
		if last.Number > 0 {
			break
		}
	}
	return last, nil
}

// ReadSegment calls each for the records of a segment; lines that a power cut tore are
// skipped.
func ReadSegment(path string, each func(Record) error) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil // pruned meanwhile
	}
	if err != nil {
		return fmt.Errorf("cannot read journal: %w", err)
	}
	defer f.Close()
	return Read(f, each)
}

// Read is [ReadSegment] for any reader.
func Read(r io.Reader, each func(Record) error) error {
	scanner := newLineReader(r)
	for {
		line, err := scanner.next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("cannot read journal: %w", err)
		}
		var record Record
		if json.Unmarshal(line, &record) != nil || record.Number == 0 {
			continue
		}
		if err := each(record); err != nil {
			return err
		}
	}
}

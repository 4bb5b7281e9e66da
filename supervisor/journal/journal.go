// Package journal keeps what units and the kernel say: one record per line, in
// append-only segment files of bounded size and number.
//
// Format: segment NNNNNNNNNNNNNNNN.jsonl holds JSON objects, one a line, {"n": number,
// "b": boot, "t": microseconds since 1970, "s": microseconds since boot, "u": unit, "p":
// priority, "m": text, "c": CRC-32 of what stands before this member}; its name is the number
// of its first record. Numbers of records grow by one over the life of the journal, those of
// boots too. The priority is a name of [Priorities]; none means "info". Each boot begins a new
// segment, so that what a power cut tore is at the end of one; it is cut off at the next start,
// and a line that is not as it was written is skipped. NNNNNNNNNNNNNNNN.summary tells what a
// segment that has ended holds.
//
// Writers never wait for the disk: lines wait in a bounded queue, from the first moment
// of the boot, and what does not fit or cannot be written is counted, and the count is
// recorded once writing works again. The lines of a unit beyond its share are dropped and
// counted likewise. The disk is told to keep what it has been given every second.
package journal

import (
	"errors"
	"fmt"
	"os"
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
	queueLimit   = 1 << 20  // bytes waiting to be written
	recordCost   = 128      // bytes of a record beside its text
	tailLength   = 12       // records of each unit kept in memory
	tailText     = 1 << 10  // bytes of their texts
	followQueue  = 4096     // records that a follower may be behind
	batchTime    = 100 * time.Millisecond
	syncTime     = time.Second / 2 // between orders to the disk: it has as long again to obey, and a second is lost at most
	segmentTime  = 24 * time.Hour  // after which a segment is ended, so that it can get too old
)

// Bounds are what a journal keeps, and takes.
type Bounds struct {
	Size  int64         // of all segments, in bytes
	Age   time.Duration // of lines; 0: any
	Rate  int           // lines a second that a unit may write in the long run; 0: any number
	Burst int           // lines that it may write at once
}

// Standard are the bounds of the appliance.
var Standard = Bounds{Size: DefaultLimit, Age: 90 * 24 * time.Hour, Rate: 1000, Burst: 10_000}

// Journal receives records. Its methods may be called from any goroutine.
type Journal struct {
	now    func() time.Time
	born   time.Time
	bornAt int64 // microseconds after the boot

	mu        sync.Mutex
	bounds    Bounds
	rates     map[string]*rate
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
	path   string
	begun  time.Time
	here   *summary // of the file
	dirty  bool
	full   bool // the last write failed

	stop chan struct{}
	done chan struct{}
}

// New returns a journal that keeps its records in memory until [Journal.Attach]. limit
// bounds the segments together, in bytes.
func New(limit int64) *Journal {
	return &Journal{
		bounds: Bounds{Size: limit}, rates: map[string]*rate{}, now: time.Now, born: time.Now(), bornAt: bootTime(), next: 1, boot: 1, tails: map[string][]Record{}, followers: map[chan Record]struct{}{},
		wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
	}
}

// Bound sets other bounds from now on.
func (j *Journal) Bound(b Bounds) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.bounds, j.rates = b, map[string]*rate{}
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
	now := j.now()
	if !j.allows(unit, now) {
		j.rouse()
		return
	}
	r := Record{
		Boot: j.boot - ago, Micros: at.UnixMicro(), Unit: unit, Priority: priority, Text: strings.ToValidUTF8(text, "\uFFFD"),
	}
	if ago == 0 {
		r.Since = max(0, j.sinceBoot(now)-now.Sub(at).Microseconds())
	}
	j.put(r)
}

// put gives a record its number and queues it. j.mu is held.
func (j *Journal) put(r Record) {
	r.Number = j.next
	tail := j.tails[r.Unit]
	if len(tail) == tailLength {
		copy(tail, tail[1:])
		tail = tail[:tailLength-1]
	}
	short := r
	if len(short.Text) > tailText {
		short.Text = strings.Clone(strings.ToValidUTF8(short.Text[:tailText], ""))
	}
	j.tails[r.Unit] = append(tail, short)
	if j.queued+len(r.Text)+recordCost > queueLimit {
		j.dropped++
		if j.cause == "" {
			j.cause = "too many at once"
		}
		return
	}
	j.next++
	j.queue = append(j.queue, r)
	j.queued += len(r.Text) + recordCost
	for c := range j.followers {
		select {
		case c <- r:
		default:
			delete(j.followers, c) // it fell behind
			close(c)
		}
	}
	j.rouse()
}

// rouse has the writer look. j.mu is held.
func (j *Journal) rouse() {
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
	last, err := mend(dir)
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
		err = errors.Join(err, j.endSegment())
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
		// Lines come in bursts: one write for many, and one order to the disk for many writes.
		for begin := j.now(); ; {
			timer.Reset(batchTime)
			select {
			case <-j.stop:
				return
			case <-timer.C:
			}
			_ = j.write() // counted and recorded
			if j.now().Sub(begin).Abs() >= syncTime-2*batchTime {
				break
			}
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
	now := j.now()
	if j.tellDropped(now) {
		j.rouse()
	}
	if dropped := j.dropped; dropped > 0 && !j.full {
		j.dropped, j.queued = 0, 0 // there is room for this one
		j.put(Record{
			Boot: j.boot, Micros: now.UnixMicro(), Since: j.sinceBoot(now), Unit: "journal", Priority: "warning",
			Text: fmt.Sprintf("%d lines were dropped: %s", dropped, j.cause),
		})
		j.cause = ""
	}
	batch, size := j.queue, j.queued
	j.queue, j.queued = nil, 0
	j.mu.Unlock()
	if len(batch) == 0 {
		return nil
	}
	lines := make([]byte, 0, size+size/8)
	for _, r := range batch {
		lines = appendRecord(lines, r)
	}
	err := j.store(lines, batch)
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
func (j *Journal) store(data []byte, batch []Record) error {
	now := j.now()
	if j.file != nil && (j.here.Size+int64(len(data)) > SegmentSize || now.Sub(j.begun).Abs() > segmentTime) {
		_ = j.endSegment() // what it holds was written long ago
	}
	if j.file == nil {
		j.mu.Lock()
		bounds := j.bounds
		j.mu.Unlock()
		var oldest time.Time
		if bounds.Age > 0 {
			oldest = now.Add(-bounds.Age)
		}
		if err := prune(j.dir, bounds.Size, oldest); err != nil {
			return err
		}
		// A segment of that name would hold nothing but the torn beginning of this record.
		path := segmentPath(j.dir, batch[0].Number)
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o640)
		if err != nil {
			return fmt.Errorf("cannot begin journal segment: %w", err)
		}
		j.file, j.path, j.begun, j.here = f, path, now, &summary{}
	}
	n, err := j.file.Write(data)
	if err != nil {
		if n > 0 {
			_ = j.file.Truncate(j.here.Size)
		}
		return fmt.Errorf("cannot write journal: %w", err)
	}
	j.here.Size += int64(n)
	for _, r := range batch {
		j.here.add(r)
	}
	j.dirty = true
	return nil
}

// endSegment closes the current segment and tells what it holds.
func (j *Journal) endSegment() error {
	err := errors.Join(unix.Fdatasync(int(j.file.Fd())), j.file.Close())
	j.here.store(j.path)
	j.file, j.dirty = nil, false
	return err
}

// sinceBoot is the time that no clock moves, in microseconds.
func (j *Journal) sinceBoot(now time.Time) int64 { return now.Sub(j.born).Microseconds() + j.bornAt }

// bootTime asks the kernel for that.
func bootTime() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return 0
	}
	return t.Nano() / 1000
}

// Package logs carries log lines from where they are produced (nodes' streams on
// TCP 12347, netconsole datagrams, consoles of virtual nodes, the server itself) to
// the database and to those who watch in real time (server-state 4, node-protocols
// 3.3 and 3.7, client-api 3.3).
//
// Memory is bounded everywhere: a sender faster than the database is slowed down by
// TCP; a watcher that does not read is disconnected; while the database refuses lines
// they are kept up to a bound, then counted as lost, and that is said. Bytes that
// are not UTF-8 are replaced, lines longer than MaxLine are cut, and no input can
// end more than its own stream.
package logs

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/waltos/waltos/services/daemon/db"
	"github.com/waltos/waltos/services/wire/literal"
)

// MaxLine is the longest line, in bytes; longer ones continue in another line.
const MaxLine = 64 << 10

// Database is what a Hub needs of *db.Client.
type Database interface {
	StreamIDs(ctx context.Context, streams ...db.Stream) ([]int64, error)
	StageRows(ctx context.Context, batch db.Batch, rows db.Rows) error
	InsertRows(ctx context.Context, batch db.Batch, rows db.Rows) error
	OpenLogs(ctx context.Context, f db.LogFilter) (*db.Cursor, error)
	CountLogs(ctx context.Context, f db.LogFilter) (int, error)
}

// Config is what a Hub works with.
type Config struct {
	DB Database

	// ByIP, ByMAC and Server find devices in the registry, at its present state.
	ByIP   func(netip.Addr) (db.Device, bool)
	ByMAC  func(mac string) (db.Device, bool)
	Server func() (db.Device, bool)

	// Warn reports what went wrong, on the real stderr: it must not come back as a
	// log line.
	Warn func(format string, args ...any)

	// Stall is how long a reader of a history may take for a part of it, a megabyte or so;
	// default 1 hour. It holds one of a limited number of places of the database.
	Stall time.Duration

	// Keep and Drop hand the connections of nodes to the supervisor, so that they
	// outlive this process: notify.StoreFD and notify.RemoveFD. nil: not done.
	Keep func(name string, f *os.File) error
	Drop func(name string) error
}

// Hub is where all log lines pass.
type Hub struct {
	config Config
	sender int64        // names the hub to the database, for the life of both
	clock  atomic.Int64 // what tick returned last, in microseconds

	mu       sync.Mutex
	streams  map[streamKey]*stream
	watchers map[*watcher]bool

	queue   []batch       // lines not stored yet, oldest first
	queued  int           // their size
	lines   int           // their number
	added   uint64        // number of batches ever queued
	stored  uint64        // how many of them have left the queue
	since   time.Time     // when the queue last became non-empty
	room    chan struct{} // closed when lines have left the queue, or cannot be stored
	failure error         // why the last attempt to store lines failed
	failed  time.Time     // when attempts began to fail
	retry   time.Time     // when the next one is due
	lost    uint64        // lines dropped since it did

	storedEver, lostEver uint64 // lines

	// Of the holder of storing.
	next  part    // what is to be stored next, if that is settled
	spare db.Rows // memory for another part

	work    chan struct{} // wakes Run
	storing chan struct{} // holds a value while someone stores lines
}

type streamKey struct {
	mac, name string
	chunk     bool
}

// stream is one log stream; id is known once a line of it was stored, and used only
// by the one who stores.
type stream struct {
	streamKey
	id int64
}

// lines are log lines, encoded as they will be stored.
type lines struct {
	rows db.Rows
	n    int
}

// add appends the line or lines that a clean text makes: one, unless it is too long. A
// character is never cut.
func (l *lines) add(at time.Time, text []byte) {
	for len(text) > MaxLine {
		n := MaxLine
		for n > MaxLine-utf8.UTFMax && !utf8.RuneStart(text[n]) {
			n--
		}
		l.rows = db.AppendRow(l.rows, at, text[:n])
		l.n++
		text = text[n:]
	}
	l.rows = db.AppendRow(l.rows, at, text)
	l.n++
}

// isClean tells whether PostgreSQL can store a text.
func isClean(text []byte) bool { return utf8.Valid(text) && bytes.IndexByte(text, 0) < 0 }

// batch is what one read of one stream gave. It is never changed.
type batch struct {
	stream *stream
	lines
}

// size is what the batch costs in memory.
func (b batch) size() int { return batchCost + len(b.rows) }

// batchCost is the cost of a batch besides its rows.
const batchCost = 128

// maxStreams is how many streams are remembered, so that their number in the database
// need not be asked for again. Nothing bounds how many names a node may use.
const maxStreams = 4096

// New returns a hub; Run must be started.
func New(config Config) *Hub {
	if config.Stall == 0 {
		config.Stall = time.Hour
	}
	return &Hub{
		config:   config,
		sender:   rand.Int64(),
		streams:  map[streamKey]*stream{},
		watchers: map[*watcher]bool{},
		room:     make(chan struct{}),
		work:     make(chan struct{}, 1),
		storing:  make(chan struct{}, 1),
	}
}

// add queues lines of a device for the database and gives them to the watchers. With
// wait it blocks while the queue is full, which is how senders are slowed down; it
// then returns only an error of ctx.
func (h *Hub) add(ctx context.Context, device db.Device, name string, chunk, wait bool, l lines) error {
	if l.n == 0 {
		return nil
	}
	first, err := h.enqueue(ctx, device, name, chunk, wait, l)
	if first {
		h.say("log lines are being lost: %d bytes wait for the database already", maxQueued)
	}
	return err
}

// say reports what happens to log lines, to administrators and to users. The line for
// users waits in the same queue as others, and may be lost as they are.
func (h *Hub) say(format string, args ...any) {
	h.config.Warn(format, args...)
	if device, ok := h.config.Server(); ok {
		var l lines
		l.add(h.tick(), []byte(db.Clean(fmt.Sprintf(format, args...))))
		_, _ = h.enqueue(context.Background(), device, db.ReportStream, false, false, l)
	}
}

// enqueue does the work of add; lossy tells that these lines are the first ones lost
// since lines were last stored.
func (h *Hub) enqueue(ctx context.Context, device db.Device, name string, chunk, wait bool, l lines) (lossy bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for wait && h.queued > maxQueued && (h.failure == nil || time.Since(h.failed) < patience) {
		room := h.room
		h.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
		}
		h.mu.Lock()
		if err := ctx.Err(); err != nil {
			return false, err
		}
	}
	for w := range h.watchers {
		w.offer(device.Name, name, l.rows)
	}
	limit := maxQueued
	if !wait {
		limit = maxUrgent
	}
	if h.queued > limit {
		h.lost += uint64(l.n)
		h.lostEver += uint64(l.n)
		return h.lost == uint64(l.n), nil
	}
	key := streamKey{device.MAC, name, chunk}
	s := h.streams[key]
	if s == nil {
		if len(h.streams) >= maxStreams {
			clear(h.streams) // those in use come back
		}
		s = &stream{streamKey: key}
		h.streams[key] = s
	}
	if len(h.queue) == 0 {
		h.since = time.Now()
	}
	b := batch{s, l}
	h.queue = append(h.queue, b)
	h.queued += b.size()
	h.lines += l.n
	h.added++
	if len(h.queue) == 1 || h.lines >= batchLines {
		select {
		case h.work <- struct{}{}:
		default:
		}
	}
	return false, nil
}

// tick returns the present time, but never the same twice: lines of the same time have
// no order in a history.
func (h *Hub) tick() time.Time {
	for {
		last, now := h.clock.Load(), time.Now().UnixMicro()
		now = max(now, last+1)
		if h.clock.CompareAndSwap(last, now) {
			return time.UnixMicro(now)
		}
	}
}

// Emit logs a line of the server itself, as stream "platform.nodes". It never waits.
func (h *Hub) Emit(name, text string) {
	if device, ok := h.config.Server(); ok {
		var l lines
		l.add(h.tick(), []byte(db.Clean(text)))
		_ = h.add(context.Background(), device, db.Clean(name), false, false, l)
	}
}

// EmitChunk logs bytes of a console of a device, as stream "virtualconsole", that came at
// some time: the line is the Python bytes literal of data. It waits while too many lines
// do, and then returns only an error of ctx.
func (h *Hub) EmitChunk(ctx context.Context, mac, name string, at time.Time, data []byte) error {
	device, known := h.config.ByMAC(mac)
	if !known {
		return nil
	}
	l := lines{db.AppendRow(nil, at, literal.FormatBytes(data)), 1}
	return h.add(ctx, device, db.Clean(name), true, true, l)
}

// Count counts the lines selected, those just received included.
func (h *Hub) Count(ctx context.Context, f db.LogFilter) (int, error) {
	if err := h.Flush(ctx); err != nil {
		return 0, err
	}
	return h.config.DB.CountLogs(ctx, f)
}

// Forget stores what a device has logged and forgets its streams. It is to be called
// when the device has left the registry and before its rows are deleted.
func (h *Hub) Forget(ctx context.Context, mac string) error {
	err := h.Flush(ctx)
	h.mu.Lock()
	defer h.mu.Unlock()
	for key := range h.streams {
		if key.mac == mac {
			delete(h.streams, key)
		}
	}
	return err
}

// Stats are figures of a hub, for those who watch over a platform.
type Stats struct {
	Stored, Lost uint64 // lines, since the start of the process
	Queued       int    // lines that wait for the database
	QueuedBytes  int    // and their size
	Watchers     int    // clients that read in real time
}

// Stats returns the present figures.
func (h *Hub) Stats() Stats {
	h.mu.Lock()
	defer h.mu.Unlock()
	return Stats{Stored: h.storedEver, Lost: h.lostEver, Queued: h.lines, QueuedBytes: h.queued, Watchers: len(h.watchers)}
}

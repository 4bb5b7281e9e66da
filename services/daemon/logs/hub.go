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
	"context"
	"net/netip"
	"os"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/waltos/waltos/services/daemon/db"
	"github.com/waltos/waltos/services/wire/literal"
)

// MaxLine is the longest line, in bytes; longer ones continue in another line.
const MaxLine = 64 << 10

// Database is what a Hub needs of *db.Client.
type Database interface {
	StreamID(ctx context.Context, issuerMAC, name string, chunk bool) (int64, error)
	InsertLines(ctx context.Context, lines []db.Line) error
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

// line is one log line; its text is clean.
type line struct {
	at   time.Time
	text string
}

// batch is what one read of one stream gave. It is never changed.
type batch struct {
	stream *stream
	lines  []line
	size   int
}

// maxStreams is how many streams are remembered, so that their number in the database
// need not be asked for again. Nothing bounds how many names a node may use.
const maxStreams = 4096

// lineCost is what a line costs in memory besides its text.
const lineCost = 64

// New returns a hub; Run must be started.
func New(config Config) *Hub {
	if config.Stall == 0 {
		config.Stall = time.Hour
	}
	return &Hub{
		config:   config,
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
func (h *Hub) add(ctx context.Context, device db.Device, name string, chunk, wait bool, lines []line) error {
	if len(lines) == 0 {
		return nil
	}
	first, err := h.enqueue(ctx, device, name, chunk, wait, lines)
	if first {
		h.config.Warn("log lines are being lost: %d bytes wait for the database already", maxQueued)
	}
	return err
}

// enqueue does the work of add; lossy tells that these lines are the first ones lost
// since lines were last stored.
func (h *Hub) enqueue(ctx context.Context, device db.Device, name string, chunk, wait bool, lines []line) (lossy bool, err error) {
	size := 0
	for _, l := range lines {
		size += lineCost + len(l.text)
	}
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
		w.offer(device.Name, name, lines, size)
	}
	limit := maxQueued
	if !wait {
		limit = maxUrgent
	}
	if h.queued > limit {
		h.lost += uint64(len(lines))
		return h.lost == uint64(len(lines)), nil
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
	h.queue = append(h.queue, batch{s, lines, size})
	h.queued += size
	h.lines += len(lines)
	h.added++
	if len(h.queue) == 1 || h.lines >= batchLines {
		select {
		case h.work <- struct{}{}:
		default:
		}
	}
	return false, nil
}

// Emit logs a line of the server itself, as stream "platform.nodes". It never waits.
func (h *Hub) Emit(name, text string) {
	if device, ok := h.config.Server(); ok {
		_ = h.add(context.Background(), device, db.Clean(name), false, false, cut(nil, time.Now(), db.Clean(text)))
	}
}

// EmitChunk logs bytes of a console of a device, as stream "virtualconsole": the line
// is the Python bytes literal of data. It never waits.
func (h *Hub) EmitChunk(mac, name string, data []byte) {
	if device, ok := h.config.ByMAC(mac); ok {
		_ = h.add(context.Background(), device, db.Clean(name), true, false, []line{{time.Now(), literal.FormatBytes(data)}})
	}
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

// cut appends the lines that a text makes: one, unless it is too long. A character
// is never cut.
func cut(lines []line, at time.Time, text string) []line {
	for len(text) > MaxLine {
		n := MaxLine
		for n > MaxLine-utf8.UTFMax && !utf8.RuneStart(text[n]) {
			n--
		}
		lines = append(lines, line{at, text[:n]})
		text = text[n:]
	}
	return append(lines, line{at, text})
}

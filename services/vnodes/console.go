package vnodes

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"sync"
	"time"
)

const (
	// chunkSize is the most that is read of a console at once: one line of its log stream.
	chunkSize = 4096
	// chunkCost is what a chunk takes in memory besides its data.
	chunkCost = 64
	// maxConsole bounds what is kept of one console that nobody takes.
	maxConsole = 256 << 10
	// maxBatch bounds what is taken at once.
	maxBatch = 1 << 20
)

// Chunk is what a console has printed at one moment.
type Chunk struct {
	MAC  string
	Time time.Time
	Data []byte
}

// Batch is what consoles have printed, in order. Its number is not that of any other.
type Batch struct {
	Number uint64
	Chunks []Chunk
}

// consoles keep what is printed until it is taken. What was taken once is given again until
// its number comes back, so that nothing is lost with a server-main that ends meanwhile.
// The oldest of a console that prints more than is kept is lost.
type consoles struct {
	mu      sync.Mutex
	waiting map[string]*console // by MAC; those that wait to be taken
	sent    Batch
	last    time.Time
	lost    uint64
	news    chan struct{} // closed when there is something to take
}

type console struct {
	chunks []Chunk
	size   int
}

func newConsoles() *consoles {
	return &consoles{
		waiting: map[string]*console{},
		sent:    Batch{Number: uint64(time.Now().UnixNano())}, // another life had other numbers
		news:    make(chan struct{}),
	}
}

// add keeps what a console has printed.
func (c *consoles) add(mac string, data []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	// The log orders lines by their time.
	now := time.Now().Truncate(time.Microsecond)
	if !now.After(c.last) {
		now = c.last.Add(time.Microsecond)
	}
	c.last = now
	w := c.waiting[mac]
	if w == nil {
		w = &console{}
		c.waiting[mac] = w
	}
	w.chunks = append(w.chunks, Chunk{mac, now, bytes.Clone(data)})
	w.size += len(data) + chunkCost
	for w.size > maxConsole {
		c.lost += uint64(len(w.chunks[0].Data))
		w.drop()
	}
	close(c.news)
	c.news = make(chan struct{})
}

// drop removes the oldest chunk.
func (w *console) drop() Chunk {
	first := w.chunks[0]
	w.chunks[0] = Chunk{}
	w.chunks = w.chunks[1:]
	w.size -= len(first.Data) + chunkCost
	return first
}

// keep forgets what nobody has taken of other consoles than these.
func (c *consoles) keep(wanted func(mac string) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.waiting, func(mac string, _ *console) bool { return !wanted(mac) })
}

func (c *consoles) lostEver() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lost
}

// take returns the next batch, as soon as there is one. taken is the number of the last one
// that the caller has.
func (c *consoles) take(ctx context.Context, taken uint64) (Batch, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if taken == c.sent.Number {
		c.sent.Chunks = nil
	}
	for len(c.sent.Chunks) == 0 {
		if len(c.waiting) > 0 {
			c.gather()
			break
		}
		news := c.news
		c.mu.Unlock()
		select {
		case <-news:
		case <-ctx.Done():
		}
		c.mu.Lock()
		if err := ctx.Err(); err != nil {
			return Batch{}, err
		}
	}
	return c.sent, nil
}

// gather makes a batch of what waits, a part of each console.
func (c *consoles) gather() {
	share := maxBatch / len(c.waiting)
	c.sent = Batch{Number: c.sent.Number + 1}
	for mac, w := range c.waiting {
		for size := 0; len(w.chunks) > 0 && (size == 0 || size < share); {
			chunk := w.drop()
			size += len(chunk.Data) + chunkCost
			c.sent.Chunks = append(c.sent.Chunks, chunk)
		}
		if len(w.chunks) == 0 {
			delete(c.waiting, mac)
		}
	}
	slices.SortFunc(c.sent.Chunks, func(a, b Chunk) int { return a.Time.Compare(b.Time) })
}

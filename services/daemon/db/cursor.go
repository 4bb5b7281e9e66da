package db

import (
	"context"
	"sync"
	"time"

	"github.com/waltos/waltos/services/daemon/connector"
)

// closeTimeout bounds the call that frees a cursor.
const closeTimeout = 5 * time.Second

// Cursor reads a history of log lines in blocks. What it returns was in the
// database, committed, when OpenLogs returned; what is stored later is never part
// of it. It is used by one goroutine.
type Cursor struct {
	link    *connector.Client
	id      uint64
	count   int64 // lines that it reads, if they were counted
	streams map[int64]wireStream
	ahead   chan block // the block being fetched while the *connector.Client works on the last
	cancel  context.CancelFunc
	once    sync.Once
	done    bool
}

type block struct {
	records []Record
	err     error
}

// OpenLogs opens a cursor on the lines selected, in the order of their time stamps.
// A regular expression that is not valid is refused here. Close must be called.
func (c *Client) OpenLogs(ctx context.Context, f LogFilter) (*Cursor, error) {
	return c.openLogs(ctx, f, false)
}

func (c *Client) openLogs(ctx context.Context, f LogFilter, count bool) (*Cursor, error) {
	id := c.cursors.Add(1)
	var opened wireOpened
	if err := c.link.Call(ctx, "openLogs", wireHistory{id, f, count}, &opened); err != nil {
		if ctx.Err() != nil { // it may be open all the same
			closeLogs(c.link.Client, id)
		}
		return nil, err
	}
	cursor := &Cursor{link: c.link.Client, id: id, count: opened.Count, streams: make(map[int64]wireStream, len(opened.Streams)), ahead: make(chan block, 1)}
	for _, s := range opened.Streams {
		cursor.streams[s.ID] = s
	}
	// The calls ahead of the reader outlive the call they are made in; Close ends them.
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	cursor.cancel = cancel
	go cursor.fetch(life)
	return cursor, nil
}

func (c *Cursor) fetch(ctx context.Context) {
	for {
		var body []byte
		err := c.link.Call(ctx, "nextLogs", c.id, &body)
		b := block{err: err}
		if err == nil {
			b.records, b.err = decodeRecords(body, c.streams)
		}
		select {
		case c.ahead <- b:
		case <-ctx.Done():
			return
		}
		if b.err != nil || len(b.records) == 0 {
			return
		}
	}
}

// Next returns the next block, or none at the end.
func (c *Cursor) Next(ctx context.Context) ([]Record, error) {
	if c.done {
		return nil, nil
	}
	select {
	case b := <-c.ahead:
		c.done = b.err != nil || len(b.records) == 0
		return b.records, b.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// each reads the cursor to its end, or to an error of f, and closes it.
func (c *Cursor) each(ctx context.Context, f func([]Record) error) error {
	defer c.Close()
	for {
		records, err := c.Next(ctx)
		if err != nil || len(records) == 0 {
			return err
		}
		if err := f(records); err != nil {
			return err
		}
	}
}

// Close frees the cursor at the server.
func (c *Cursor) Close() {
	c.once.Do(func() {
		c.cancel()
		closeLogs(c.link, c.id)
	})
}

func closeLogs(link *connector.Client, id uint64) {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	// If server-db is gone, so is the cursor.
	_ = link.Call(ctx, "closeLogs", id, nil)
}

package connector

import (
	"context"
	"runtime"
	"sync"
)

// outgoing gathers frames while the connection is busy, so that many small ones
// leave in one system call.
type outgoing struct {
	mu     sync.Mutex
	ready  sync.Cond // there is something to write
	room   sync.Cond // something was written
	buf    []byte
	closed bool
}

// maxOutgoing is how much may wait before senders wait too.
const maxOutgoing = 4 << 20

func (o *outgoing) close() {
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	o.ready.Broadcast()
	o.room.Broadcast()
}

// put has add append to what is to be written. It waits, until ctx ends, only if the
// other side does not read.
func (o *outgoing) put(ctx context.Context, add func(buf []byte) ([]byte, error)) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.buf) > maxOutgoing {
		stop := context.AfterFunc(ctx, func() {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.room.Broadcast()
		})
		defer stop()
		for len(o.buf) > maxOutgoing && !o.closed {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			o.room.Wait()
		}
	}
	return o.add(add)
}

// offer is put, but fails with ErrBusy where put would wait.
func (o *outgoing) offer(add func(buf []byte) ([]byte, error)) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.buf) > maxOutgoing && !o.closed {
		return ErrBusy
	}
	return o.add(add)
}

// add appends; mu is held.
func (o *outgoing) add(add func(buf []byte) ([]byte, error)) error {
	if o.closed {
		return ErrNotSent
	}
	buf, err := add(o.buf)
	o.buf = buf
	if err == nil {
		o.ready.Signal()
	}
	return err
}

// write writes what is gathered, until the connection ends.
func (p *Peer) write() {
	o := &p.out
	var spare []byte
	for {
		o.mu.Lock()
		for len(o.buf) == 0 && !o.closed {
			o.ready.Wait()
		}
		o.mu.Unlock()
		runtime.Gosched() // those that are about to send leave with this
		o.mu.Lock()
		if o.closed {
			o.mu.Unlock()
			return
		}
		buf := o.buf
		o.buf = spare[:0]
		o.mu.Unlock()
		o.room.Broadcast()
		if _, err := p.conn.Write(buf); err != nil {
			p.Close() // Serve notices
			return
		}
		if spare = buf; cap(spare) > 1<<20 {
			spare = nil
		}
	}
}

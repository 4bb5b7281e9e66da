package logs

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/waltos/waltos/services/daemon/db"
	"github.com/waltos/waltos/services/daemon/trackexec"
)

const (
	// Lines are stored when there are so many, or when the oldest is so old.
	batchLines = 512
	batchDelay = 300 * time.Millisecond

	// maxQueued is the size of the lines that may wait for the database; what cannot
	// wait itself (the server's own lines, datagrams) may go up to maxUrgent.
	maxQueued = 16 << 20
	maxUrgent = 24 << 20

	// maxStore is the size of the lines stored by one call.
	maxStore = 3 << 20

	// keptMessage is the largest memory kept for the next call when there are few lines.
	keptMessage = 256 << 10

	// storeTimeout bounds one call; it is reached only when server-db is away.
	storeTimeout = 20 * time.Second

	retryPause  = 100 * time.Millisecond
	lastAttempt = 5 * time.Second // to store what is left when the hub ends

	// patience is how long senders are held back, rather than lines lost, while the
	// database fails: PostgreSQL may be restarting, or its cluster choosing another server.
	// After that it may be away for hours, or its disk be full, and nodes go on.
	patience = 90 * time.Second
)

// Run stores lines until ctx ends, then stores what it holds, in a bounded time.
func (h *Hub) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		pause, idle := h.due()
		if idle {
			select {
			case <-h.work:
			case <-ctx.Done():
			}
			continue
		}
		if pause > 0 {
			timer.Reset(pause)
			select {
			case <-timer.C:
			case <-h.work: // perhaps there are enough lines now
			case <-ctx.Done():
			}
			continue
		}
		// What failed has been reported, and is kept for the next turn.
		_ = h.locked(ctx, func() error { return h.storeSome(ctx, math.MaxUint64) })
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastAttempt)
	defer cancel()
	if err := h.Flush(last); err != nil {
		h.mu.Lock()
		defer h.mu.Unlock()
		return fmt.Errorf("cannot store the last %d log lines: %w", h.lines, err)
	}
	return nil
}

// due tells when the next lines are to be stored.
func (h *Hub) due() (pause time.Duration, idle bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case len(h.queue) == 0:
		return 0, true
	case h.failure != nil:
		return time.Until(h.retry), false
	case h.lines >= batchLines:
		return 0, false
	}
	return time.Until(h.since.Add(batchDelay)), false
}

// locked runs f while nobody else stores lines.
func (h *Hub) locked(ctx context.Context, f func() error) error {
	select {
	case h.storing <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-h.storing }()
	return f()
}

// Flush returns when all lines received before the call are stored.
func (h *Hub) Flush(ctx context.Context) error {
	return h.locked(ctx, func() error {
		h.mu.Lock()
		target := h.added
		h.mu.Unlock()
		return h.storeUntil(ctx, target)
	})
}

// storeUntil stores the batches up to number target, and no other; h.storing is held.
func (h *Hub) storeUntil(ctx context.Context, target uint64) error {
	for {
		h.mu.Lock()
		done := h.stored >= target
		h.mu.Unlock()
		if done {
			return nil
		}
		if err := h.storeSome(ctx, target); err != nil {
			return err
		}
	}
}

// storeSome stores the oldest batches, up to number target, in one call of a
// bounded size; h.storing is held. They leave the queue when they are committed.
//
// A call that failed is made again, with the same batches: the database may have died
// between commit and answer, and knows by their number that it has stored them.
func (h *Hub) storeSome(ctx context.Context, target uint64) error {
	h.mu.Lock()
	var taken []batch
	size, lines := 0, 0
	for _, b := range h.queue {
		enough := h.stored+uint64(len(taken)) == target || size > 0 && size+b.size() > maxStore
		if h.tried > 0 {
			enough = len(taken) == h.tried
		}
		if enough {
			break
		}
		taken = append(taken, b)
		size += b.size()
		lines += b.n
	}
	h.tried = len(taken)
	number := h.stored + uint64(len(taken))
	h.mu.Unlock()
	if len(taken) == 0 {
		return nil
	}
	call, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	call, span := trackexec.Begin(call, trackexec.Task, "store log lines")
	err := h.insert(call, number, taken, size)
	span.Note("", int64(lines))
	span.End(err)
	if err != nil && ctx.Err() != nil {
		return err // the caller has given up: that tells nothing of the database
	}

	h.mu.Lock()
	before, lost := h.failure, h.lost
	h.failure = err
	if err == nil {
		h.lost, h.tried = 0, 0
		clear(h.queue[:len(taken)])
		h.queue = h.queue[len(taken):]
		h.queued -= size
		h.lines -= lines
		h.storedEver += uint64(lines)
		h.stored += uint64(len(taken))
		h.since = time.Now()
	} else {
		h.retry = time.Now().Add(retryPause)
		if before == nil {
			h.failed = time.Now()
		}
	}
	close(h.room)
	h.room = make(chan struct{})
	h.mu.Unlock()

	switch {
	case err != nil && before == nil:
		h.say("log lines cannot be stored: %v; trying again", err)
	case err == nil && before != nil:
		h.say("log lines are stored again; %d were lost", lost)
	case err == nil && lost > 0:
		h.say("%d log lines were lost: they came faster than the database stores them", lost)
	}
	return err
}

// insert stores batches of so many bytes, up to one with a number, in one call.
func (h *Hub) insert(ctx context.Context, number uint64, batches []batch, size int) error {
	message := slices.Grow(h.message[:0], size)
	for _, b := range batches {
		if b.stream.id == 0 {
			id, err := h.config.DB.StreamID(ctx, b.stream.mac, b.stream.name, b.stream.chunk)
			if err != nil {
				return err
			}
			b.stream.id = id
		}
		if b.stream.id == 0 {
			continue // its device has been forgotten
		}
		start := len(message)
		message = append(message, b.rows...)
		message[start:].SetStream(b.stream.id)
	}
	if h.message = message; cap(message) > keptMessage && size < keptMessage {
		h.message = nil // the flow has become small
	}
	if len(message) == 0 {
		return nil
	}
	return h.config.DB.InsertRows(ctx, db.Batch{Sender: h.sender, Number: int64(number)}, message)
}

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

// storeUntil stores the batches up to number target, and what is settled to be stored with
// them; h.storing is held.
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

// part is what one call stores: the oldest batches, or those after them.
type part struct {
	batches []batch
	number  uint64 // of the last
	size    int
	lines   int
	full    bool    // more wait behind it
	rows    db.Rows // of the batches; nil: not encoded yet
}

// part returns the batches after the oldest ones, up to number target.
func (h *Hub) part(after int, target uint64) part {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := part{number: h.stored + uint64(after)}
	for _, b := range h.queue[after:] {
		if p.full = p.size > 0 && p.size+b.size() > maxStore; p.full || p.number == target {
			break
		}
		p.batches = append(p.batches, b)
		p.number++
		p.size += b.size()
		p.lines += b.n
	}
	return p
}

// storeSome stores the oldest batches, up to number target, in one call of a
// bounded size; h.storing is held. They leave the queue when they are committed. When
// many lines wait, those of the next call are sent meanwhile.
//
// A call that failed is made again, with the same batches: the database may have died
// between commit and answer, and knows by their number that it has stored them.
func (h *Hub) storeSome(ctx context.Context, target uint64) error {
	p := h.next
	if h.next = (part{}); len(p.batches) == 0 {
		p = h.part(0, target)
	}
	if len(p.batches) == 0 {
		return nil
	}
	call, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	call, span := trackexec.Begin(call, trackexec.Task, "store log lines")
	err := h.encode(call, &p)
	if err == nil {
		stored := make(chan error, 1)
		go func() { stored <- h.insert(call, &p) }()
		next := h.stage(call, len(p.batches))
		if err = <-stored; err == nil {
			h.next = next
			if p.size >= keptMessage || cap(p.rows) <= keptMessage { // else the flow has become small
				h.spare = p.rows
			}
		}
	}
	span.Note("", int64(p.lines))
	span.End(err)
	if err != nil {
		h.next = p
		if ctx.Err() != nil {
			return err // the caller has given up: that tells nothing of the database
		}
	}

	h.mu.Lock()
	before, lost := h.failure, h.lost
	h.failure = err
	if err == nil {
		h.lost = 0
		clear(h.queue[:len(p.batches)])
		h.queue = h.queue[len(p.batches):]
		h.queued -= p.size
		h.lines -= p.lines
		h.storedEver += uint64(p.lines)
		h.stored = p.number
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

// stage sends the batches after the oldest ones to the database if they fill a call, and
// returns them. If that fails, they are sent when they are stored.
func (h *Hub) stage(ctx context.Context, after int) part {
	p := h.part(after, math.MaxUint64)
	if !p.full || h.encode(ctx, &p) != nil || len(p.rows) == 0 {
		return part{}
	}
	_ = h.config.DB.StageRows(ctx, h.batch(&p), p.rows)
	return p
}

// encode makes the rows of a part, none of those whose device has been forgotten.
func (h *Hub) encode(ctx context.Context, p *part) error {
	if p.rows != nil {
		return nil
	}
	if err := h.identify(ctx, p.batches); err != nil {
		return err
	}
	p.rows = slices.Grow(h.spare[:0], p.size)
	h.spare = nil
	for _, b := range p.batches {
		if b.stream.id != 0 {
			start := len(p.rows)
			p.rows = append(p.rows, b.rows...)
			p.rows[start:].SetStream(b.stream.id)
		}
	}
	return nil
}

// identify has the database number the streams of batches.
func (h *Hub) identify(ctx context.Context, batches []batch) error {
	seen := map[*stream]bool{}
	var unknown []*stream
	var wanted []db.Stream
	for _, b := range batches {
		if s := b.stream; s.id == 0 && !seen[s] {
			seen[s] = true
			unknown = append(unknown, s)
			wanted = append(wanted, db.Stream{IssuerMAC: s.mac, Name: s.name, Chunk: s.chunk})
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	ids, err := h.config.DB.StreamIDs(ctx, wanted...)
	if err != nil {
		return err
	}
	for i, s := range unknown {
		s.id = ids[i]
	}
	return nil
}

// insert stores the rows of a part.
func (h *Hub) insert(ctx context.Context, p *part) error {
	if len(p.rows) == 0 {
		return nil
	}
	return h.config.DB.InsertRows(ctx, h.batch(p), p.rows)
}

// batch names a part to the database.
func (h *Hub) batch(p *part) db.Batch { return db.Batch{Sender: h.sender, Number: int64(p.number)} }

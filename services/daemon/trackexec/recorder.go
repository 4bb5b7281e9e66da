package trackexec

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/waltos/waltos/services/daemon/trackexec/format"
)

const (
	// maxFull bounds the full blocks that wait to be written, of 64 KiB each.
	maxFull = 64

	// lasting is how long an operation is under way before it is announced, and idleness
	// how long nothing must have been before it is told.
	lasting  = 100 * time.Millisecond
	idleness = time.Millisecond
)

// Recorder gathers what a process does. A nil one does nothing, at no cost.
type Recorder struct {
	base time.Time // when times are 0

	wake  chan struct{} // holds a value when there are full blocks
	stop  chan struct{} // closed by Close
	ended chan struct{} // closed when all is written
	once  sync.Once

	mu     sync.Mutex
	off    bool // nobody writes any more
	lastID uint64
	block  *format.Block   // of the latest events; their times are those of the recorder
	full   []*format.Block // those before, oldest first
	spare  []*format.Block // empty
	lost   int64           // events dropped since the last ones were written
	young  Span            // ring of the operations under way and not announced, oldest first
	busy   int             // operations under way, but streams
	idle   time.Duration   // since when there is none
}

// spanKey is the context key of the operation under way, a *Span.
type spanKey struct{}

// spanContext is a context with its operation, in one allocation.
type spanContext struct {
	context.Context
	span Span
}

func (c *spanContext) Value(key any) any {
	if key == (spanKey{}) {
		return &c.span
	}
	return c.Context.Value(key)
}

// Span is an operation under way. A nil one records nothing.
type Span struct {
	recorder   *Recorder
	event      format.Event // guarded by the recorder, but for what never changes
	next, prev *Span        // in the ring of the young; nil: announced or ended
	ended      bool
}

// Context returns a context whose operations are recorded by r.
func (r *Recorder) Context(ctx context.Context) context.Context {
	if r == nil {
		return ctx
	}
	return &spanContext{Context: ctx, span: Span{recorder: r, ended: true}}
}

// From returns the recorder of a context, or nil.
func From(ctx context.Context) *Recorder {
	if s, ok := ctx.Value(spanKey{}).(*Span); ok {
		return s.recorder
	}
	return nil
}

// Begin begins an operation within the one that ctx is of, if any. The context returned is
// for what is done within the operation, which must End.
func (r *Recorder) Begin(ctx context.Context, kind format.Kind, name string) (context.Context, *Span) {
	if r == nil {
		return ctx, nil
	}
	return r.beginWithin(ctx, kind, name)
}

func (r *Recorder) beginWithin(ctx context.Context, kind format.Kind, name string) (context.Context, *Span) {
	parent, _ := ctx.Value(spanKey{}).(*Span)
	return r.begin(ctx, parent, kind, name, "", -1)
}

// Request begins a call of an API in a session, which is within no other operation. It is
// what Begin and Note would do, in less time.
func (r *Recorder) Request(ctx context.Context, api, method string, session uint64) (context.Context, *Span) {
	if r == nil {
		return ctx, nil
	}
	return r.begin(ctx, nil, format.Request, method, api, int64(session))
}

func (r *Recorder) now() time.Duration { return time.Since(r.base) }

// begin begins an operation that is within parent, if there is one.
func (r *Recorder) begin(ctx context.Context, parent *Span, kind format.Kind, name, detail string, number int64) (context.Context, *Span) {
	c := &spanContext{Context: ctx}
	s, e := &c.span, &c.span.event
	s.recorder, e.Kind, e.Name, e.Detail, e.Number = r, kind, name, detail, number
	if parent != nil && parent.event.ID != 0 {
		e.Parent = parent.event.ID
		e.Depth = parent.event.Depth
		if e.Depth < 255 {
			e.Depth++
		}
	}
	now := r.now()
	e.Start = int64(now)
	r.mu.Lock()
	if r.off {
		r.mu.Unlock()
		return ctx, nil
	}
	e.ID = r.newID()
	s.next, s.prev = &r.young, r.young.prev
	s.prev.next, s.next.prev = s, s
	if kind != format.Stream {
		if gap := now - r.idle; r.busy == 0 && gap >= idleness {
			r.record(&format.Event{ID: r.newID(), Kind: format.Idle, State: format.Done, Start: int64(r.idle), Duration: int64(gap), Number: -1})
		}
		r.busy++
	}
	r.mu.Unlock()
	return c, s
}

// newID returns the number of an operation; r.mu is held.
func (r *Recorder) newID() uint64 {
	r.lastID++
	return r.lastID
}

// record adds an event; r.mu is held. It is encoded here, and not by the writer, because it
// takes a few bytes in the block, and would take a hundred to wait for it.
func (r *Recorder) record(e *format.Event) {
	if r.block.Full() {
		if len(r.full) >= maxFull {
			r.lost++
			return
		}
		r.turn()
		select {
		case r.wake <- struct{}{}:
		default:
		}
	}
	r.block.Add(e)
}

// turn begins another block; r.mu is held.
func (r *Recorder) turn() {
	r.full = append(r.full, r.block)
	if n := len(r.spare); n > 0 {
		r.block, r.spare = r.spare[n-1], r.spare[:n-1]
		return
	}
	r.block = &format.Block{}
}

// Note adds a detail and a number to an operation, see format.Kind.
func (s *Span) Note(detail string, number int64) {
	if s != nil {
		s.note(detail, number)
	}
}

func (s *Span) note(detail string, number int64) {
	s.recorder.mu.Lock()
	s.event.Detail, s.event.Number = detail, number
	s.recorder.mu.Unlock()
}

// End ends an operation, with its error. Only the first call counts.
func (s *Span) End(err error) {
	if s != nil {
		s.end(err)
	}
}

func (s *Span) end(err error) {
	r := s.recorder
	state, failure := format.Done, ""
	if err != nil {
		state, failure = format.Failed, err.Error()
		if errors.Is(err, context.Canceled) {
			state = format.Cancelled
		}
	}
	now := r.now()
	r.mu.Lock()
	if s.ended {
		r.mu.Unlock()
		return
	}
	s.ended = true
	if s.event.Kind != format.Stream {
		if r.busy--; r.busy == 0 {
			r.idle = now
		}
	}
	e := &s.event
	e.Duration, e.State, e.Failure = int64(now)-e.Start, state, failure
	if e.Announced = s.next == nil; !e.Announced {
		s.leave()
	}
	if !r.off {
		r.record(e)
	}
	r.mu.Unlock()
}

// leave takes an operation out of the ring of the young; r.mu is held.
func (s *Span) leave() {
	s.prev.next, s.next.prev = s.next, s.prev
	s.next, s.prev = nil, nil
}

// announce adds the beginnings of operations that are under way for so long; r.mu is held.
func (r *Recorder) announce(before time.Duration) {
	for s := r.young.next; s != &r.young && s.event.Start <= int64(before); s = r.young.next {
		s.leave()
		begun := s.event
		begun.State = format.Open
		r.record(&begun)
	}
}

// take returns the blocks to be written; with all, the one that is being filled, too.
func (r *Recorder) take(all bool) []*format.Block {
	r.mu.Lock()
	defer r.mu.Unlock()
	if (all || r.lost > 0) && !r.block.Empty() {
		r.turn()
	}
	if r.lost > 0 {
		r.record(&format.Event{ID: r.newID(), Kind: format.Lost, State: format.Done, Start: int64(r.now()), Number: r.lost})
		r.lost = 0
	}
	blocks := r.full
	r.full = nil
	return blocks
}

// maxSpare is how many empty blocks are kept: more were used only in a rush.
const maxSpare = 4

// give gives back a block that is written.
func (r *Recorder) give(b *format.Block) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.spare) < maxSpare {
		r.spare = append(r.spare, b)
	}
}

// turnOff makes the recorder forget all that it is told.
func (r *Recorder) turnOff() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.off, r.full, r.spare = true, nil, nil
}

// closeTime is how long Close waits for a disk that does not answer.
const closeTime = 5 * time.Second

// Close writes what is left, and the beginnings of what is still under way.
func (r *Recorder) Close() {
	if r == nil {
		return
	}
	r.once.Do(func() { close(r.stop) })
	select {
	case <-r.ended:
	case <-time.After(closeTime):
	}
}

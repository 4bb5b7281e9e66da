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
	open   []operation     // those under way, and free places
	free   int32           // first of the free places; -1: none
	busy   int             // operations under way, but streams
	idle   int64           // since when there is none
}

// operation is one that is under way, or a free place for one: its ID is 0 then.
type operation struct {
	format.Event
	next int32 // of the free places; -1: none
}

// Span is an operation under way. A zero one records nothing.
type Span struct {
	recorder *Recorder
	id       uint64 // 0: none, but others within it are recorded
	place    int32  // in recorder.open, while the operation there has this id
	depth    uint8
}

// spanKey is the context key of the operation under way, a *Span.
type spanKey struct{}

// Scope is a context for what is done within an operation, to be held in what is allocated
// for the operation anyway.
type Scope struct {
	context.Context
	span Span
}

// Value is that of context.Context.
func (s *Scope) Value(key any) any {
	if key == (spanKey{}) && s.span.recorder != nil {
		return &s.span
	}
	return s.Context.Value(key)
}

// Scope returns a context for what is done within the operation.
func (s Span) Scope(ctx context.Context) Scope { return Scope{ctx, s} }

// Context is Scope on its own.
func (s Span) Context(ctx context.Context) context.Context {
	if s.recorder == nil {
		return ctx
	}
	return &Scope{ctx, s}
}

// Context returns a context whose operations are recorded by r.
func (r *Recorder) Context(ctx context.Context) context.Context {
	return Span{recorder: r}.Context(ctx)
}

// From returns the recorder of a context, or nil.
func From(ctx context.Context) *Recorder { return spanOf(ctx).recorder }

// spanOf returns the operation that a context is of, if any.
func spanOf(ctx context.Context) Span {
	if s, ok := ctx.Value(spanKey{}).(*Span); ok {
		return *s
	}
	return Span{}
}

// Begin begins an operation within the one that ctx is of, if any. The context returned is
// for what is done within the operation, which must End.
func (r *Recorder) Begin(ctx context.Context, kind format.Kind, name string) (context.Context, Span) {
	if r == nil {
		return ctx, Span{}
	}
	return r.beginWithin(ctx, spanOf(ctx), kind, name)
}

func (r *Recorder) beginWithin(ctx context.Context, parent Span, kind format.Kind, name string) (context.Context, Span) {
	if r == nil {
		return ctx, Span{}
	}
	s := r.begin(parent, kind, r.now(), name, "", -1)
	return s.Context(ctx), s
}

// Request begins a call of an API in a session, now, which is within no other operation.
// It allocates nothing and does not read the clock.
func (r *Recorder) Request(now time.Time, api, method string, session uint64) Span {
	if r == nil {
		return Span{}
	}
	return r.begin(Span{}, format.Request, int64(now.Sub(r.base)), method, api, int64(session))
}

func (r *Recorder) now() int64 { return int64(time.Since(r.base)) }

// begin begins an operation that is within parent, if there is one. What it is told about
// the operation is written once, to its place, and read once, when it is encoded.
func (r *Recorder) begin(parent Span, kind format.Kind, start int64, name, detail string, number int64) Span {
	r.mu.Lock()
	if r.off {
		r.mu.Unlock()
		return Span{}
	}
	id := r.newID()
	if kind != format.Stream {
		if gap := start - r.idle; r.busy == 0 && gap >= int64(idleness) {
			r.record(&format.Event{ID: r.newID(), Kind: format.Idle, State: format.Done, Start: r.idle, Duration: gap, Number: -1})
		}
		r.busy++
	}
	place := r.free
	if place < 0 {
		place = int32(len(r.open))
		r.open = append(r.open, operation{next: -1})
	}
	o := &r.open[place]
	r.free = o.next
	o.ID, o.Parent, o.Start, o.Number, o.Kind, o.Depth = id, 0, start, number, kind, 0
	if parent.id != 0 {
		o.Parent, o.Depth = parent.id, min(parent.depth, 254)+1
	}
	o.Name, o.Detail = name, detail
	s := Span{r, id, place, o.Depth}
	r.mu.Unlock()
	return s
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

// find returns an operation that is under way, or nil; the recorder's mu is held.
func (s Span) find() *operation {
	if int(s.place) < len(s.recorder.open) {
		if o := &s.recorder.open[s.place]; o.ID == s.id && s.id != 0 {
			return o
		}
	}
	return nil
}

// Note adds a detail and a number to an operation, see format.Kind.
func (s Span) Note(detail string, number int64) {
	if s.recorder == nil {
		return
	}
	s.recorder.mu.Lock()
	defer s.recorder.mu.Unlock()
	if o := s.find(); o != nil {
		o.Detail, o.Number = detail, number
	}
}

// End ends an operation, with its error. Only the first call counts.
func (s Span) End(err error) {
	if s.recorder != nil {
		s.end(-1, err)
	}
}

// EndAfter is End for those who know how long the operation took.
func (s Span) EndAfter(took time.Duration, err error) {
	if s.recorder != nil {
		s.end(int64(took), err)
	}
}

// end ends an operation that took so long, or -1: until now.
func (s Span) end(took int64, err error) {
	r := s.recorder
	state, failure := format.Done, ""
	if err != nil {
		state, failure = format.Failed, err.Error()
		if errors.Is(err, context.Canceled) {
			state = format.Cancelled
		}
	}
	var now int64
	if took < 0 {
		now = r.now()
	}
	r.mu.Lock()
	if o := s.find(); o != nil {
		if took < 0 {
			took = now - o.Start
		}
		if o.Kind != format.Stream {
			if r.busy--; r.busy == 0 {
				r.idle = o.Start + took
			}
		}
		o.Duration, o.State, o.Failure = took, state, failure
		if !r.off {
			r.record(&o.Event)
		}
		// No text is held for longer than the operation.
		o.Event = format.Event{}
		o.next, r.free = r.free, s.place
	}
	r.mu.Unlock()
}

// announce adds the beginnings of operations that are under way for so long; r.mu is held.
func (r *Recorder) announce(before int64) {
	for i := range r.open {
		o := &r.open[i]
		if o.ID != 0 && !o.Announced && o.Start <= before {
			begun := o.Event
			begun.State = format.Open
			r.record(&begun)
			o.Announced = true
		}
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
		r.record(&format.Event{ID: r.newID(), Kind: format.Lost, State: format.Done, Start: r.now(), Number: r.lost})
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

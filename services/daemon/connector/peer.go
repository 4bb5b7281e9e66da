// Package connector carries typed calls, in both directions, between two processes
// of the WalT daemon over one stream connection: frames of a 32-bit big-endian
// length, a small head, and a body of at most 16 MiB, which is CBOR (RFC 8949) unless
// both sides agree on an encoding of their own (Body).
//
// Many calls may be in flight. Each ends with a reply, an Error made of the error of
// the remote handler, ErrPeerLost when the connection ends, or the error of the
// caller's context, which is then carried to the context of the remote handler.
// Calls start in the order in which they were sent, each in a goroutine of its own,
// but for those that an Inline serves at once.
// Notifications have no answer; they are handled one at a time in the order in which
// they were sent, apart from calls.
//
// A peer that breaks the framing is cut off. The connector authenticates nobody:
// who may connect is a matter of the permissions of its socket.
package connector

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"runtime/debug"
	"sync"

	"github.com/waltos/waltos/services/internal/direct"
)

// ErrPeerLost is the error of a call whose connection ended before its reply: the
// other process may have done the work, or not.
var ErrPeerLost = errors.New("the other process went away")

// ErrNotSent is the ErrPeerLost of a call that certainly did not reach the other
// process.
var ErrNotSent = fmt.Errorf("%w before the call was sent", ErrPeerLost)

// ErrBusy is the error of Start when too much waits to be sent.
var ErrBusy = errors.New("the other process does not read")

// Error is what the error of a handler becomes at the caller.
type Error struct{ Message string }

func (e *Error) Error() string { return e.Message }

// A Handler serves the calls and notifications of a peer. The body is the CBOR of the
// argument, see Decode; the reply is any value that CBOR can express, nil included, or
// a Body. The context ends when the caller gives up and when the connection ends.
type Handler func(ctx context.Context, p *Peer, method string, body []byte) (reply any, err error)

// An Inline serves those calls whose service is so short that a goroutine would cost
// more, while the calls that follow wait. It appends its reply to a buffer, or tells that
// the call is none of those. The body is valid only until it returns. It must not wait.
type Inline func(p *Peer, method string, body, buf []byte) (reply []byte, served bool, err error)

// A Completion is told the end of a call that Start began.
type Completion interface {
	// Complete is called once, unless Cancel was: by the goroutine that reads the
	// connection, so that it must not wait. body is valid only until it returns.
	Complete(body []byte, err error)
}

// maxCalls bounds the calls of one peer that are served at once; the next ones wait
// in the connection.
const maxCalls = 16384

// Peer is one end of a connection.
type Peer struct {
	conn    net.Conn
	handler Handler
	inline  Inline // may be nil
	greeted func() // called once the other side has accepted the connection; may be nil

	ctx    context.Context // ends with the connection
	cancel context.CancelFunc

	mu       sync.Mutex
	lastID   uint64
	waiting  map[uint64]Completion         // our calls
	serving  map[uint64]context.CancelFunc // theirs
	slots    chan struct{}
	notified chan frame

	replies []byte // of the calls served inline, until they are sent
	out     outgoing
}

// NewPeer returns the peer at the other end of a connection. Its Serve must be
// running for its calls to be answered. A nil handler refuses every call.
func NewPeer(conn net.Conn, h Handler) *Peer { return newPeer(conn, h, nil) }

func newPeer(conn net.Conn, h Handler, inline Inline) *Peer {
	if h == nil {
		h = func(context.Context, *Peer, string, []byte) (any, error) {
			return nil, errors.New("this process serves no call")
		}
	}
	if cheap, err := direct.New(conn); err == nil { // else it has no descriptor
		conn = cheap
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &Peer{
		conn: conn, handler: h, inline: inline, ctx: ctx, cancel: cancel,
		waiting:  map[uint64]Completion{},
		serving:  map[uint64]context.CancelFunc{},
		slots:    make(chan struct{}, maxCalls),
		notified: make(chan frame, 256),
	}
	p.out.ready.L, p.out.room.L = &p.out.mu, &p.out.mu
	go p.write()
	return p
}

// Done is closed when the connection has ended.
func (p *Peer) Done() <-chan struct{} { return p.ctx.Done() }

// Context ends with the connection.
func (p *Peer) Context() context.Context { return p.ctx }

// Close ends the connection.
func (p *Peer) Close() {
	// First, so that no caller is told that its call was cancelled, which it was because of this.
	p.conn.Close()
	p.out.close()
	p.cancel()
}

// Serve reads the connection until it or ctx ends. The error is nil when the other
// side or ctx ended it.
func (p *Peer) Serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, p.Close)
	defer stop()
	defer p.abandon()
	go p.handleNotifications()
	r := newReader(p.conn)
	for {
		f, err := r.next()
		if err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || p.ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("cannot read from the other process: %w", err)
		}
		if err := p.receive(f); err != nil {
			return err
		}
		if len(p.replies) > 0 && (len(p.replies) > maxReplies || !r.more()) {
			if p.flush() != nil {
				return nil
			}
		}
	}
}

// abandon ends everything after the connection.
func (p *Peer) abandon() {
	p.Close()
	p.mu.Lock()
	waiting := p.waiting
	p.waiting = nil
	p.mu.Unlock()
	for _, call := range waiting {
		call.Complete(nil, ErrPeerLost)
	}
}

func (p *Peer) receive(f frame) error {
	switch f.kind {
	case kindCall:
		if p.inline != nil && p.serveInline(&f) {
			return nil
		}
		return p.begin(f)
	case kindReply:
		if call := p.take(f.id); call != nil { // else the caller gave up
			call.Complete(f.body, nil)
		}
	case kindError:
		if call := p.take(f.id); call != nil {
			call.Complete(nil, &Error{f.text})
		}
	case kindCancel:
		p.mu.Lock()
		cancel := p.serving[f.id]
		p.mu.Unlock()
		if cancel != nil {
			cancel()
		}
	case kindHello:
		if p.greeted != nil {
			p.greeted()
			p.greeted = nil
		}
	case kindNotify:
		f.body = bytes.Clone(f.body)
		select {
		case p.notified <- f:
		case <-p.ctx.Done():
		}
	}
	return nil
}

// take returns one of our calls that is over, or nil.
func (p *Peer) take(id uint64) Completion {
	p.mu.Lock()
	defer p.mu.Unlock()
	call := p.waiting[id]
	delete(p.waiting, id)
	return call
}

// maxReplies is how much is gathered before it is sent.
const maxReplies = 64 << 10

// serveInline serves a call at once if it is of those that can be.
func (p *Peer) serveInline(f *frame) bool {
	start := len(p.replies)
	buf, served, err := p.callInline(f, beginFrame(p.replies, kindReply, f.id, ""))
	if !served {
		return false
	}
	if err == nil {
		err = endFrame(buf, start)
	}
	if err != nil {
		buf = beginFrame(p.replies, kindError, f.id, err.Error())
		_ = endFrame(buf, start) // the text of an error is not that long
	}
	p.replies = buf
	return true
}

func (p *Peer) callInline(f *frame, buf []byte) (reply []byte, served bool, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			log.Printf("panic in %s: %v\n%s", f.text, cause, debug.Stack())
			served, err = true, fmt.Errorf("internal error in %s: %v", f.text, cause)
		}
	}()
	return p.inline(p, f.text, f.body, buf)
}

// flush sends what was served inline.
func (p *Peer) flush() error {
	err := p.out.put(p.ctx, func(buf []byte) ([]byte, error) { return append(buf, p.replies...), nil })
	if p.replies = p.replies[:0]; cap(p.replies) > 1<<20 {
		p.replies = nil
	}
	return err
}

// begin serves a call in a goroutine of its own.
func (p *Peer) begin(f frame) error {
	select {
	case p.slots <- struct{}{}:
	case <-p.ctx.Done():
		return nil
	}
	f.body = bytes.Clone(f.body)
	ctx, cancel := context.WithCancel(p.ctx)
	p.mu.Lock()
	_, twice := p.serving[f.id]
	p.serving[f.id] = cancel
	p.mu.Unlock()
	if twice {
		cancel()
		return fmt.Errorf("cannot serve the other process: it used the call number %d twice", f.id)
	}
	go p.serve(ctx, cancel, f)
	return nil
}

func (p *Peer) serve(ctx context.Context, cancel context.CancelFunc, f frame) {
	defer func() { <-p.slots }()
	direct.Long()
	var body Body
	reply, err := p.handle(ctx, &f)
	if err == nil {
		body, err = encode(reply)
	}
	p.mu.Lock()
	delete(p.serving, f.id)
	p.mu.Unlock()
	cancel()
	if err == nil {
		if err = p.send(p.ctx, kindReply, f.id, "", body); err == nil || errors.Is(err, ErrPeerLost) {
			return
		}
		err = fmt.Errorf("cannot answer: %w", err) // too long, for example
	}
	_ = p.send(p.ctx, kindError, f.id, err.Error(), nil)
}

// handle runs the handler; its panic is an error of this call only.
func (p *Peer) handle(ctx context.Context, f *frame) (reply any, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			log.Printf("panic in %s: %v\n%s", f.text, cause, debug.Stack())
			err = fmt.Errorf("internal error in %s: %v", f.text, cause)
		}
	}()
	return p.handler(ctx, p, f.text, f.body)
}

func (p *Peer) handleNotifications() {
	for {
		select {
		case f := <-p.notified:
			if _, err := p.handle(p.ctx, &f); err != nil {
				log.Printf("cannot handle notification %s: %v", f.text, err)
			}
		case <-p.ctx.Done():
			return
		}
	}
}

// Start begins a call and returns its number; its end is told to done. It never waits:
// the error is ErrBusy when Call would, and ErrNotSent after the end of the connection.
func (p *Peer) Start(method string, arg Body, done Completion) (id uint64, err error) {
	if id = p.register(done); id == 0 {
		return 0, ErrNotSent
	}
	err = p.out.offer(func(buf []byte) ([]byte, error) { return appendFrame(buf, kindCall, id, method, arg) })
	if err != nil && p.take(id) == nil {
		return id, nil // it was told already that the connection ended
	}
	return id, err
}

// Cancel gives up a call that Start began, and tells whether that was in time: if not,
// its end was told, or is being told.
func (p *Peer) Cancel(id uint64) bool {
	if p.take(id) == nil {
		return false
	}
	_ = p.send(p.ctx, kindCancel, id, "", nil)
	return true
}

// register gives a number to a call; it is 0 after the end of the connection.
func (p *Peer) register(done Completion) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting == nil {
		return 0
	}
	p.lastID++
	p.waiting[p.lastID] = done
	return p.lastID
}

// waiter is the Completion of Call.
type waiter chan answer

type answer struct {
	body []byte
	err  error
}

// Complete is that of Completion.
func (w waiter) Complete(body []byte, err error) { w <- answer{bytes.Clone(body), err} }

// Call calls a method of the other process and decodes its reply into reply, a
// pointer, unless it is nil.
func (p *Peer) Call(ctx context.Context, method string, arg, reply any) error {
	body, err := encode(arg)
	if err != nil {
		return fmt.Errorf("cannot call %s: %w", method, err)
	}
	w := make(waiter, 1)
	id := p.register(w)
	if id == 0 {
		return ErrNotSent
	}
	if err := p.send(ctx, kindCall, id, method, body); err != nil {
		p.take(id)
		if errors.Is(err, ErrPeerLost) || ctx.Err() != nil {
			return err
		}
		return fmt.Errorf("cannot call %s: %w", method, err)
	}
	select {
	case a := <-w:
		return a.decode(method, reply)
	case <-ctx.Done():
	}
	if p.Cancel(id) {
		return ctx.Err()
	}
	// The answer came meanwhile: the work is done.
	a := <-w
	return a.decode(method, reply)
}

func (a answer) decode(method string, reply any) error {
	if a.err != nil || reply == nil {
		return a.err
	}
	if err := Decode(a.body, reply); err != nil {
		return fmt.Errorf("cannot decode the reply of %s: %w", method, err)
	}
	return nil
}

// Notify sends a notification. Nil only says that it was sent.
func (p *Peer) Notify(method string, arg any) error {
	body, err := encode(arg)
	if err == nil {
		err = p.send(p.ctx, kindNotify, 0, method, body)
	}
	if err != nil && !errors.Is(err, ErrPeerLost) {
		return fmt.Errorf("cannot notify %s: %w", method, err)
	}
	return err
}

// send queues a frame. It waits, until ctx ends, only if the other side does not read.
func (p *Peer) send(ctx context.Context, kind uint8, id uint64, text string, body Body) error {
	return p.out.put(ctx, func(buf []byte) ([]byte, error) { return appendFrame(buf, kind, id, text, body) })
}

// Package connector carries typed calls, in both directions, between two processes
// of the WalT daemon over one stream connection: frames of a 32-bit big-endian
// length and a CBOR array (RFC 8949), of at most 16 MiB.
//
// Many calls may be in flight. Each ends with a reply, an Error made of the error of
// the remote handler, ErrPeerLost when the connection ends, or the error of the
// caller's context, which is then carried to the context of the remote handler.
// Calls start in the order in which they were sent, each in a goroutine of its own.
// Notifications have no answer; they are handled one at a time in the order in which
// they were sent, apart from calls.
//
// A peer that breaks the framing is cut off. The connector authenticates nobody:
// who may connect is a matter of the permissions of its socket.
package connector

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"runtime/debug"
	"sync"
)

// ErrPeerLost is the error of a call whose connection ended before its reply: the
// other process may have done the work, or not.
var ErrPeerLost = errors.New("the other process went away")

// ErrNotSent is the ErrPeerLost of a call that certainly did not reach the other
// process.
var ErrNotSent = fmt.Errorf("%w before the call was sent", ErrPeerLost)

// Error is what the error of a handler becomes at the caller.
type Error struct{ Message string }

func (e *Error) Error() string { return e.Message }

// A Handler serves the calls and notifications of a peer. The body is the CBOR of the
// argument, see Decode; the reply is any value that CBOR can express, nil included.
// The context ends when the caller gives up and when the connection ends.
type Handler func(ctx context.Context, p *Peer, method string, body []byte) (reply any, err error)

// maxCalls bounds the calls of one peer that are served at once; the next ones wait
// in the connection.
const maxCalls = 16384

// Peer is one end of a connection.
type Peer struct {
	conn    net.Conn
	handler Handler

	ctx    context.Context // ends with the connection
	cancel context.CancelFunc

	mu       sync.Mutex
	lastID   uint64
	waiting  map[uint64]chan *frame        // our calls
	serving  map[uint64]context.CancelFunc // theirs
	slots    chan struct{}
	notified chan *frame

	out outgoing
}

// NewPeer returns the peer at the other end of a connection. Its Serve must be
// running for its calls to be answered. A nil handler refuses every call.
func NewPeer(conn net.Conn, h Handler) *Peer {
	if h == nil {
		h = func(context.Context, *Peer, string, []byte) (any, error) {
			return nil, errors.New("this process serves no call")
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &Peer{
		conn: conn, handler: h, ctx: ctx, cancel: cancel,
		waiting:  map[uint64]chan *frame{},
		serving:  map[uint64]context.CancelFunc{},
		slots:    make(chan struct{}, maxCalls),
		notified: make(chan *frame, 256),
	}
	p.out.ready.L = &p.out.mu
	go p.write()
	return p
}

// Done is closed when the connection has ended.
func (p *Peer) Done() <-chan struct{} { return p.ctx.Done() }

// Context ends with the connection.
func (p *Peer) Context() context.Context { return p.ctx }

// Close ends the connection.
func (p *Peer) Close() {
	p.cancel()
	p.conn.Close()
	p.out.close()
}

// Serve reads the connection until it or ctx ends. The error is nil when the other
// side or ctx ended it.
func (p *Peer) Serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, p.Close)
	defer stop()
	defer p.abandon()
	go p.handleNotifications()
	r := bufio.NewReaderSize(p.conn, 64<<10)
	for {
		f, err := readFrame(r)
		if err != nil {
			if errors.Is(err, io.EOF) || p.ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("cannot read from the other process: %w", err)
		}
		if err := p.receive(f); err != nil {
			return err
		}
	}
}

// abandon ends everything after the connection.
func (p *Peer) abandon() {
	p.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, reply := range p.waiting {
		close(reply)
		delete(p.waiting, id)
	}
	p.waiting = nil
}

func (p *Peer) receive(f *frame) error {
	switch f.Kind {
	case kindCall:
		select {
		case p.slots <- struct{}{}:
		case <-p.ctx.Done():
			return nil
		}
		ctx, cancel := context.WithCancel(p.ctx)
		p.mu.Lock()
		_, twice := p.serving[f.ID]
		p.serving[f.ID] = cancel
		p.mu.Unlock()
		if twice {
			cancel()
			return fmt.Errorf("cannot serve the other process: it used the call number %d twice", f.ID)
		}
		go p.serve(ctx, cancel, f)
	case kindReply, kindError:
		p.mu.Lock()
		reply := p.waiting[f.ID]
		delete(p.waiting, f.ID)
		p.mu.Unlock()
		if reply != nil { // else the caller gave up
			reply <- f
		}
	case kindCancel:
		p.mu.Lock()
		cancel := p.serving[f.ID]
		p.mu.Unlock()
		if cancel != nil {
			cancel()
		}
	case kindNotify:
		select {
		case p.notified <- f:
		case <-p.ctx.Done():
		}
	default:
		return fmt.Errorf("cannot serve the other process: it sent a message of unknown kind %d", f.Kind)
	}
	return nil
}

func (p *Peer) serve(ctx context.Context, cancel context.CancelFunc, f *frame) {
	defer func() { <-p.slots }()
	answer := frame{Kind: kindReply, ID: f.ID}
	reply, err := p.handle(ctx, f)
	if err == nil {
		answer.Body, err = Encode(reply)
	}
	if err != nil {
		answer = frame{Kind: kindError, ID: f.ID, Method: err.Error()}
	}
	p.mu.Lock()
	delete(p.serving, f.ID)
	p.mu.Unlock()
	cancel()
	if err := p.send(p.ctx, &answer); err != nil && !errors.Is(err, ErrPeerLost) {
		// Too long, for example. This one fits.
		p.send(p.ctx, &frame{Kind: kindError, ID: f.ID, Method: "cannot answer: " + err.Error()})
	}
}

// handle runs the handler; its panic is an error of this call only.
func (p *Peer) handle(ctx context.Context, f *frame) (reply any, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			log.Printf("panic in %s: %v\n%s", f.Method, cause, debug.Stack())
			err = fmt.Errorf("internal error in %s: %v", f.Method, cause)
		}
	}()
	return p.handler(ctx, p, f.Method, f.Body)
}

func (p *Peer) handleNotifications() {
	for {
		select {
		case f := <-p.notified:
			if _, err := p.handle(p.ctx, f); err != nil {
				log.Printf("cannot handle notification %s: %v", f.Method, err)
			}
		case <-p.ctx.Done():
			return
		}
	}
}

// Call calls a method of the other process and decodes its reply into reply, a
// pointer, unless it is nil.
func (p *Peer) Call(ctx context.Context, method string, arg, reply any) error {
	body, err := Encode(arg)
	if err != nil {
		return fmt.Errorf("cannot call %s: %w", method, err)
	}
	answer := make(chan *frame, 1)
	p.mu.Lock()
	if p.waiting == nil {
		p.mu.Unlock()
		return ErrNotSent
	}
	p.lastID++
	id := p.lastID
	p.waiting[id] = answer
	p.mu.Unlock()

	if err := p.send(ctx, &frame{Kind: kindCall, ID: id, Method: method, Body: body}); err != nil {
		p.forget(id)
		if errors.Is(err, ErrPeerLost) || ctx.Err() != nil {
			return err
		}
		return fmt.Errorf("cannot call %s: %w", method, err)
	}
	select {
	case f := <-answer:
		return decodeAnswer(f, method, reply)
	case <-ctx.Done():
	}
	if p.forget(id) {
		p.send(p.ctx, &frame{Kind: kindCancel, ID: id})
		return ctx.Err()
	}
	// The answer came meanwhile: the work is done.
	return decodeAnswer(<-answer, method, reply)
}

func decodeAnswer(f *frame, method string, reply any) error {
	switch {
	case f == nil:
		return ErrPeerLost
	case f.Kind == kindError:
		return &Error{f.Method}
	case reply == nil:
		return nil
	}
	if err := Decode(f.Body, reply); err != nil {
		return fmt.Errorf("cannot decode the reply of %s: %w", method, err)
	}
	return nil
}

// forget removes one of our calls and tells whether it was still there.
func (p *Peer) forget(id uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.waiting[id]
	delete(p.waiting, id)
	return ok
}

// Notify sends a notification. Nil only says that it was sent.
func (p *Peer) Notify(method string, arg any) error {
	body, err := Encode(arg)
	if err == nil {
		err = p.send(p.ctx, &frame{Kind: kindNotify, Method: method, Body: body})
	}
	if err != nil && !errors.Is(err, ErrPeerLost) {
		return fmt.Errorf("cannot notify %s: %w", method, err)
	}
	return err
}

// outgoing gathers frames while the connection is busy, so that many small ones
// leave in one system call.
type outgoing struct {
	mu     sync.Mutex
	ready  sync.Cond
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
}

// send queues a frame. It waits, until ctx ends, only if the other side does not
// read.
func (p *Peer) send(ctx context.Context, f *frame) error {
	o := &p.out
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.buf) > maxOutgoing {
		stop := context.AfterFunc(ctx, func() {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.ready.Broadcast()
		})
		defer stop()
		for len(o.buf) > maxOutgoing && !o.closed {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			o.ready.Wait()
		}
	}
	if o.closed {
		return ErrNotSent
	}
	buf, err := appendFrame(o.buf, f)
	o.buf = buf
	if err != nil {
		return err
	}
	o.ready.Broadcast()
	return nil
}

func (p *Peer) write() {
	o := &p.out
	var spare []byte
	for {
		o.mu.Lock()
		for len(o.buf) == 0 && !o.closed {
			o.ready.Wait()
		}
		if o.closed {
			o.mu.Unlock()
			return
		}
		buf := o.buf
		o.buf = spare[:0]
		o.mu.Unlock()
		o.ready.Broadcast()
		if _, err := p.conn.Write(buf); err != nil {
			p.Close() // Serve notices
			return
		}
		if spare = buf; cap(spare) > 1<<20 {
			spare = nil
		}
	}
}

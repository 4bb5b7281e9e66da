package connector

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"sync"
	"syscall"
	"time"
)

// Client is a connection to the process that listens on a unix socket, made again
// whenever it is lost.
type Client struct {
	path    string
	handler Handler
	ctx     context.Context
	cancel  context.CancelFunc
	done    sync.WaitGroup

	mu        sync.Mutex
	peer      *Peer         // nil while not connected
	changed   chan struct{} // closed when peer changes
	lastErr   error         // of the last attempt to connect
	onConnect []func(*Peer)
}

// Dial returns a client of the process that listens at path, which need not be
// there yet. h serves what that process calls back; it may be nil.
func Dial(path string, h Handler) *Client {
	ctx, cancel := context.WithCancel(context.Background())
	c := &Client{path: path, handler: h, ctx: ctx, cancel: cancel, changed: make(chan struct{})}
	c.done.Go(c.run)
	return c
}

// OnConnect has f called with each new connection, and with the present one if
// there is one. f may call the peer, but delays nothing else than later connections.
func (c *Client) OnConnect(f func(*Peer)) {
	c.mu.Lock()
	c.onConnect = append(c.onConnect, f)
	peer := c.peer
	c.mu.Unlock()
	if peer != nil {
		f(peer)
	}
}

// Close ends the connection, and with it the calls in flight.
func (c *Client) Close() {
	c.cancel()
	c.done.Wait()
}

// Peer returns the other process, after having waited until it is there.
func (c *Client) Peer(ctx context.Context) (*Peer, error) {
	for {
		c.mu.Lock()
		peer, changed, lastErr := c.peer, c.changed, c.lastErr
		c.mu.Unlock()
		if peer != nil && peer.ctx.Err() == nil {
			return peer, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if lastErr == nil {
				lastErr = ctx.Err()
			}
			return nil, &unreachable{c.path, lastErr, ctx.Err()}
		case <-c.ctx.Done():
			return nil, ErrPeerLost
		}
	}
}

// Present returns the other process if it is there, else nil.
func (c *Client) Present() *Peer {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.peer
}

// unreachable is the error of a call that found nobody before its context ended.
type unreachable struct {
	path       string
	cause, ctx error
}

func (e *unreachable) Error() string   { return fmt.Sprintf("cannot reach %s: %v", e.path, e.cause) }
func (e *unreachable) Unwrap() []error { return []error{e.cause, e.ctx} }

// Call calls a method of the other process. Until ctx ends it waits for that process
// to be there. A call in flight when it goes away fails with ErrPeerLost and is
// not repeated, because it may have been served.
func (c *Client) Call(ctx context.Context, method string, arg, reply any) error {
	for {
		peer, err := c.Peer(ctx)
		if err != nil {
			return err
		}
		if err := peer.Call(ctx, method, arg, reply); !errors.Is(err, ErrNotSent) {
			return err
		}
	}
}

// Notify sends a notification to the other process if it is there.
func (c *Client) Notify(method string, arg any) error {
	c.mu.Lock()
	peer := c.peer
	c.mu.Unlock()
	if peer == nil {
		return ErrPeerLost
	}
	return peer.Notify(method, arg)
}

func (c *Client) run() {
	const first, longest = 10 * time.Millisecond, time.Second
	pause := first
	for c.ctx.Err() == nil {
		var d net.Dialer
		conn, err := d.DialContext(c.ctx, "unix", c.path)
		if err != nil {
			c.mu.Lock()
			c.lastErr = err
			c.mu.Unlock()
			if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ECONNREFUSED) && c.ctx.Err() == nil {
				log.Printf("cannot connect to %s: %v", c.path, err)
			}
			select {
			case <-time.After(pause):
			case <-c.ctx.Done():
			}
			pause = min(2*pause, longest)
			continue
		}
		pause = first
		c.serve(conn)
	}
}

func (c *Client) serve(conn net.Conn) {
	peer := NewPeer(conn, c.handler)
	var connected sync.WaitGroup
	// A connection that waits to be accepted may be one to a process that is ending, or is
	// yet to start: what was sent on it would be lost.
	peer.greeted = func() {
		c.mu.Lock()
		callbacks := c.onConnect
		c.set(peer)
		c.mu.Unlock()
		connected.Go(func() {
			for _, f := range callbacks {
				f(peer)
			}
		})
	}
	if err := peer.Serve(c.ctx); err != nil {
		log.Printf("connection to %s: %v", c.path, err)
	}
	c.mu.Lock()
	if c.peer != nil {
		c.set(nil)
	}
	c.mu.Unlock()
	connected.Wait()
}

// set changes the peer; c.mu is held.
func (c *Client) set(p *Peer) {
	c.peer = p
	close(c.changed)
	c.changed = make(chan struct{})
}

// Listen serves every connection accepted by ln with h until ctx ends; then it
// closes ln, ends the connections and returns nil.
func Listen(ctx context.Context, ln net.Listener, h Handler) error {
	return ListenInline(ctx, ln, h, nil)
}

// ListenInline is Listen; calls are first offered to inline.
func ListenInline(ctx context.Context, ln net.Listener, h Handler, inline Inline) error {
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	defer ln.Close() // that may not have begun when the end of ctx is seen here
	var peers sync.WaitGroup
	defer peers.Wait()
	for {
		conn, err := ln.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return nil
		case err == nil:
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("cannot accept connections: %w", err)
		default: // as "too many open files"
			log.Printf("cannot accept a connection on %s: %v", ln.Addr(), err)
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		}
		peers.Go(func() {
			p := newPeer(conn, h, inline)
			_ = p.send(ctx, kindHello, 0, "", nil) // if it fails, Serve does
			if err := p.Serve(ctx); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
				log.Printf("connection on %s: %v", ln.Addr(), err)
			}
		})
	}
}

package hub

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/waltos/waltos/services/daemon/connector"
	"github.com/waltos/waltos/services/daemon/session"
	"github.com/waltos/waltos/services/daemon/trackexec"
	"github.com/waltos/waltos/services/internal/quota"
	"github.com/waltos/waltos/services/wire/literal"
	"github.com/waltos/waltos/services/wire/pickle"
	"github.com/waltos/waltos/services/wire/rpc"
)

// Bounds of one connection.
const (
	maxTargetLine = 64
	openingTime   = 10 * time.Second // for the target API line
	firstTime     = 5 * time.Minute  // between the opening and the first message
	messageTime   = 30 * time.Second // from the first byte of a message to its last
	writeTime     = time.Minute      // for one message; a stopped client reads nothing
	maxPending    = 32               // calls, and callbacks

	userSize = 4 << 20 // of a message of a user or of the server itself
	nodeSize = 64 << 10
)

// waitMethod is the call that clients of the Python API abandon when its timeout
// expires, and send another one without a word (CN-32).
const waitMethod = "wait_for_nodes"

// conn is one connection of a client.
//
// There are no numbers on the wire to tell answers apart, only their order: calls
// nest like those of a program. While a callback of a call is pending, the client
// may make a call of the next level, whose callbacks and result come before the
// answer to the first callback. So whatever is sent for a call waits until every
// callback of its level, and of deeper ones, is answered.
type conn struct {
	hub   *Hub
	nc    net.Conn
	peer  netip.Addr
	api   string
	codec *rpc.Codec

	ctx    context.Context // ends with the connection
	cancel context.CancelFunc
	served sync.WaitGroup // calls

	mu        sync.Mutex
	changed   sync.Cond // callbacks or closed changed
	mode      rpc.Mode  // of what is sent
	closed    bool
	id        uint64 // of the session; 0 before its first call
	lastCall  uint64
	calls     []*call     // being served, oldest first
	queue     []*call     // sent ahead of the answer to an earlier one
	callbacks []*callback // awaiting their answer, innermost last
}

type call struct {
	id      uint64
	level   int // number of callbacks that were pending
	message rpc.Message
	cancel  context.CancelFunc

	superseded bool // nobody waits for its result
}

type callback struct{ answer chan any }

func newConn(h *Hub, nc net.Conn, peer netip.Addr) *conn {
	c := &conn{hub: h, nc: nc, peer: peer, mode: rpc.Lines}
	c.changed.L = &c.mu
	return c
}

// serve serves the connection until the client, an error, or ctx ends it. An error is
// one that is worth a line.
func (c *conn) serve(ctx context.Context) error {
	request, r, err := rpc.ReadRequest(ctx, c.nc)
	if err != nil {
		return silent(err)
	}
	if request != rpc.APISession {
		return fmt.Errorf("cannot serve request: %v is not for this port", request)
	}
	c.ctx, c.cancel = context.WithCancel(ctx)
	defer c.cancel()
	stop := context.AfterFunc(ctx, func() { c.nc.Close() })
	defer stop()
	if err := c.open(r); err != nil {
		return silent(err)
	}
	err = c.read()
	c.close()
	return silent(err)
}

// silent drops the errors of connections that just ended.
func silent(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// open reads the name of the API and announces the version.
func (c *conn) open(r *bufio.Reader) error {
	if err := c.nc.SetReadDeadline(time.Now().Add(openingTime)); err != nil {
		return err
	}
	line, err := rpc.ReadLine(r, maxTargetLine)
	if err != nil {
		return fmt.Errorf("cannot read the target API: %w", err)
	}
	c.api = trim(line)
	size := int64(userSize)
	if c.api == "NSAPI" || c.api == "VSAPI" || !slices.Contains(apis, c.api) {
		size = nodeSize
	}
	c.codec = rpc.NewCodec(r, nil, pickle.Limits{Size: size})
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.write([]byte(Version + "\n"))
}

func trim(line string) string {
	for len(line) > 0 && (line[len(line)-1] == '\r' || line[len(line)-1] == ' ') {
		line = line[:len(line)-1]
	}
	return line
}

// read serves the messages of the client until it closes.
func (c *conn) read() error {
	limit := time.Now().Add(firstTime)
	for {
		if err := c.nc.SetReadDeadline(limit); err != nil {
			return err
		}
		if err := c.codec.Wait(); err != nil {
			return err
		}
		if err := c.nc.SetReadDeadline(time.Now().Add(messageTime)); err != nil {
			return err
		}
		m, err := c.codec.Read()
		if err != nil {
			return err
		}
		limit = time.Time{} // a session may be idle; the TCP keep-alive finds dead peers
		switch m.Kind {
		case rpc.SetMode:
			if err := c.codec.SetMode(rpc.Mode(m.Name)); err != nil {
				return err
			}
			c.mu.Lock()
			c.mode = rpc.Mode(m.Name)
			c.mu.Unlock()
		case rpc.APICall:
			if err := c.begin(m); err != nil {
				return err
			}
		case rpc.Result:
			if err := c.answer(m.Value); err != nil {
				return err
			}
		default:
			return nil
		}
	}
}

// close ends everything after the connection.
func (c *conn) close() {
	c.mu.Lock()
	c.closed = true
	for _, cb := range c.callbacks {
		close(cb.answer)
	}
	c.callbacks, c.queue = nil, nil
	c.mu.Unlock()
	c.changed.Broadcast()
	c.cancel()
	c.served.Wait() // server-main must know of their end before that of the session
	if c.id != 0 {
		c.hub.unregister(c.id)
	}
}

// begin serves a call of the client, or has it wait for an earlier one.
func (c *conn) begin(m rpc.Message) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.calls)+len(c.queue) >= maxPending {
		return fmt.Errorf("cannot serve more than %d calls at once", maxPending)
	}
	c.lastCall++
	next := &call{id: c.lastCall, level: len(c.callbacks), message: m}
	if earlier := c.pendingAt(next.level); earlier != nil {
		if c.api != "CSAPI" || earlier.message.Name != waitMethod {
			c.queue = append(c.queue, next)
			return nil
		}
		earlier.superseded = true
		earlier.cancel()
	}
	c.start(next)
	return nil
}

// pendingAt returns the call of a level that the client waits for, if any.
func (c *conn) pendingAt(level int) *call {
	for _, other := range c.calls {
		if other.level >= level && !other.superseded {
			return other
		}
	}
	return nil
}

// start begins to serve a call; c.mu is held.
func (c *conn) start(next *call) {
	if c.id == 0 {
		c.id = c.hub.register(c)
	}
	ctx, cancel := context.WithCancel(c.ctx)
	next.cancel = cancel
	c.calls = append(c.calls, next)
	c.served.Go(func() {
		defer cancel()
		ctx, span := c.hub.trace.Begin(ctx, trackexec.Request, next.message.Name)
		span.Note(c.api, int64(c.id))
		message, err := c.forward(ctx, next)
		span.End(err)
		c.finish(next, message, err)
	})
}

// forward has server-main serve a call.
func (c *conn) forward(ctx context.Context, call *call) ([]byte, error) {
	m := call.message
	log.Print(describe(c.api, c.peer, m))
	if !slices.Contains(apis, c.api) {
		return nil, fmt.Errorf("unknown target API %q", c.api)
	}
	if own := quota.Address(c.nc.LocalAddr()); !c.hub.access(c.api, c.peer, c.peer.IsLoopback() || c.peer == own) {
		return nil, fmt.Errorf("the API %s is not open to %v", c.api, c.peer)
	}
	message, err := c.hub.link.Call(ctx, session.Call{
		Session: c.id, API: c.api, Peer: c.peer, ID: call.id,
		Method: m.Name, Args: m.Args, Kwargs: m.Kwargs,
	})
	switch {
	case errors.Is(err, connector.ErrPeerLost):
		return nil, fmt.Errorf("the server process that served %s ended before its answer, and is being restarted", m.Name)
	case errors.Is(err, context.DeadlineExceeded):
		return nil, fmt.Errorf("the server is not ready: %w", err)
	}
	return message, err
}

// describe returns the line that is logged of a call.
func describe(api string, peer netip.Addr, m rpc.Message) string {
	const limit = 300
	text, err := literal.Format(pickle.Tuple{m.Args, m.Kwargs})
	if err != nil {
		text = err.Error()
	}
	if len(text) > limit {
		text = text[:limit] + "..."
	}
	return fmt.Sprintf("%v: %.20q %.80q %s", peer, api, m.Name, text)
}

// finish answers a call, and starts the one that waited for it.
func (c *conn) finish(over *call, message []byte, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for !c.closed && !over.superseded && len(c.callbacks) > over.level {
		c.changed.Wait()
	}
	c.calls = slices.DeleteFunc(c.calls, func(other *call) bool { return other == over })
	if c.closed {
		return
	}
	if !over.superseded {
		c.respond(message, err)
	}
	if len(c.queue) > 0 && c.pendingAt(c.queue[0].level) == nil {
		next := c.queue[0]
		c.queue = c.queue[1:]
		c.start(next)
	}
}

// respond sends the RESULT or EXCEPTION of a call; c.mu is held.
func (c *conn) respond(message []byte, err error) {
	if err == nil {
		if message, err = rpc.Transcode(c.mode, message); err != nil {
			err = fmt.Errorf("cannot send the result: %w", err)
		}
	}
	if err != nil {
		c.hub.exceptions.Add(1)
		log.Printf("%v: exception: %v", c.peer, err)
		message, err = rpc.Encode(c.mode, rpc.Message{Kind: rpc.Exception, Name: rpc.OneLine(err.Error())})
	}
	if err == nil {
		err = c.write(message)
	}
	if err != nil { // the reading side will notice
		c.nc.Close()
	}
}

// write sends bytes to the client; c.mu is held.
func (c *conn) write(data []byte) error {
	if err := c.nc.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
		return err
	}
	_, err := c.nc.Write(data)
	return err
}

// callback sends a message to the client on behalf of a pending call, and returns the
// pickle of the answer.
func (c *conn) callback(ctx context.Context, callID uint64, message []byte) ([]byte, error) {
	cb, err := c.push(ctx, callID, message)
	if err != nil {
		return nil, err
	}
	select {
	case v, ok := <-cb.answer:
		if !ok {
			return nil, session.ErrGone
		}
		return pickle.Marshal(v)
	case <-ctx.Done(): // the answer will come all the same, and be dropped
		return nil, ctx.Err()
	}
}

// push waits for the turn of a callback and sends it.
func (c *conn) push(ctx context.Context, callID uint64, message []byte) (*callback, error) {
	stop := context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.changed.Broadcast()
	})
	defer stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		if c.closed {
			return nil, session.ErrGone
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		i := slices.IndexFunc(c.calls, func(pending *call) bool { return pending.id == callID })
		if i < 0 || c.calls[i].superseded {
			return nil, errors.New("the call that it belongs to is over")
		}
		if len(c.callbacks) <= c.calls[i].level {
			break
		}
		c.changed.Wait()
	}
	message, err := rpc.Transcode(c.mode, message)
	if err != nil {
		return nil, err
	}
	if err := c.write(message); err != nil {
		c.nc.Close()
		return nil, session.ErrGone
	}
	cb := &callback{answer: make(chan any, 1)}
	c.callbacks = append(c.callbacks, cb)
	return cb, nil
}

// answer gives a RESULT to the innermost pending callback.
func (c *conn) answer(v any) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := len(c.callbacks)
	if n == 0 {
		return errors.New("cannot accept a RESULT: no callback is pending")
	}
	c.callbacks[n-1].answer <- v
	c.callbacks = c.callbacks[:n-1]
	c.changed.Broadcast()
	return nil
}

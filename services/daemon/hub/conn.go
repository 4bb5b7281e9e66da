package hub

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/waltos/waltos/services/daemon/session"
	"github.com/waltos/waltos/services/internal/direct"
	"github.com/waltos/waltos/services/internal/quota"
	"github.com/waltos/waltos/services/wire/pickle"
	"github.com/waltos/waltos/services/wire/rpc"
)

// Bounds of one connection.
const (
	maxTargetLine = 64
	openingTime   = 10 * time.Second // for the target API line
	firstTime     = 5 * time.Minute  // between the opening and the first message
	messageTime   = 30 * time.Second // from the first byte of a message to its last
	writeTime     = time.Minute      // for a part of what is sent; a stopped client reads nothing
	maxPending    = 32               // calls, and callbacks

	userSize   = 4 << 20 // of a message of a user or of the server itself
	nodeSize   = 64 << 10
	userValues = 1 << 16
)

// conn is one connection of a client.
//
// There are no numbers on the wire to tell answers apart, only their order: calls
// nest like those of a program. While a callback of a call is pending, the client
// may make a call of the next level, whose callbacks and result come before the
// answer to the first callback. So whatever is sent for a call waits until every
// callback of its level, and of deeper ones, is answered.
//
// Two goroutines drive it, neither of which waits for the other: one reads the client,
// and that of the link to server-main tells the ends of calls.
type conn struct {
	hub     *Hub
	nc      *direct.Conn
	in      input // nc, read with limits in time
	peer    netip.Addr
	api     string
	refused error // why calls are refused
	codec   *rpc.Codec

	ctx    context.Context // ends with the connection
	cancel context.CancelFunc
	served sync.WaitGroup // goroutines

	mu        sync.Mutex
	changed   sync.Cond // callbacks, closed or out changed
	out       output
	mode      rpc.Mode // of what is sent
	closed    bool
	id        uint64 // of the session; 0 before its first call
	lastCall  uint64
	calls     []*call     // being served, oldest first
	queue     []*call     // sent ahead of the answer to an earlier one
	callbacks []*callback // awaiting their answer, innermost last
	held      int         // bytes of messages, of hub.memory
}

func newConn(h *Hub, nc *direct.Conn, peer netip.Addr) *conn {
	c := &conn{hub: h, nc: nc, in: input{Conn: nc}, peer: peer, mode: rpc.Lines}
	c.changed.L = &c.mu
	return c
}

// serve serves the connection until the client, an error, or ctx ends it. An error is
// one that is worth a line.
func (c *conn) serve(ctx context.Context) error {
	request, r, err := rpc.ReadRequest(ctx, &c.in)
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
	if err := c.in.limit(openingTime); err != nil {
		return err
	}
	line, err := rpc.ReadLine(r, maxTargetLine)
	if err != nil {
		return fmt.Errorf("cannot read the target API: %w", err)
	}
	c.api = trim(line)
	c.refused = c.mayCall()
	limits := pickle.Limits{Size: userSize, Values: userValues, Grow: c.hold}
	if c.refused != nil || c.api == "NSAPI" || c.api == "VSAPI" {
		limits.Size = nodeSize
	}
	c.codec = rpc.NewCodec(r, nil, limits)
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

// mayCall tells why calls are refused, if they are.
func (c *conn) mayCall() error {
	if !slices.Contains(apis, c.api) {
		return fmt.Errorf("unknown target API %q", c.api)
	}
	if own := quota.Address(c.nc.LocalAddr()); !c.hub.access(c.api, c.peer, c.peer.IsLoopback() || c.peer == own) {
		return fmt.Errorf("the API %s is not open to %v", c.api, c.peer)
	}
	return nil
}

// read serves the messages of the client until it closes.
func (c *conn) read() error {
	if err := c.in.limit(firstTime); err != nil {
		return err
	}
	for {
		c.waitRead()
		if err := c.codec.Wait(); err != nil {
			return err
		}
		c.in.begin()
		m, err := c.codec.Read()
		if err != nil {
			return err
		}
		// A session may be idle; the TCP keep-alive finds dead peers.
		if err := c.in.done(); err != nil {
			return err
		}
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
		c.release()
	}
}

// hold counts memory for a message.
func (c *conn) hold(n int) error {
	if err := c.hub.memory.take(n); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held += n
	return nil
}

// release gives back the memory of messages when none is waiting any more.
func (c *conn) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held > 0 && len(c.queue) == 0 {
		c.hub.memory.give(c.held)
		c.held = 0
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
	calls := slices.Clone(c.calls)
	c.mu.Unlock()
	c.changed.Broadcast()
	c.cancel()
	c.nc.Close()
	for _, pending := range calls {
		if pending.cancel == nil && pending.pending.Cancel() {
			pending.span.End(session.ErrGone)
		}
	}
	c.served.Wait() // server-main must know of their end before that of the session
	c.release()
	if c.id != 0 {
		c.hub.unregister(c.id)
	}
}

package hub

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"slices"
	"time"

	"github.com/waltos/waltos/services/daemon/connector"
	"github.com/waltos/waltos/services/daemon/session"
	"github.com/waltos/waltos/services/daemon/trackexec"
	"github.com/waltos/waltos/services/wire/rpc"
)

// waitMethod is the call that clients of the Python API abandon when its timeout
// expires, and send another one without a word (CN-32).
const waitMethod = "wait_for_nodes"

// call is one call of a client.
type call struct {
	conn    *conn
	id      uint64
	level   int // number of callbacks that were pending
	message rpc.Message
	pending session.Pending // server-main serves it
	cancel  context.CancelFunc
	span    trackexec.Span

	superseded bool // nobody waits for its result

	// The end, while callbacks of its level are still pending.
	over   bool
	result []byte
	err    error
}

// begin serves a call of the client, or has it wait for an earlier one.
func (c *conn) begin(m rpc.Message) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.calls)+len(c.queue) >= maxPending {
		return fmt.Errorf("cannot serve more than %d calls at once", maxPending)
	}
	c.lastCall++
	next := &call{conn: c, id: c.lastCall, level: len(c.callbacks), message: m}
	if earlier := c.pendingAt(next.level); earlier != nil {
		if c.api != "CSAPI" || earlier.message.Name != waitMethod {
			if err := c.hub.memory.take(c.codec.Length()); err != nil {
				return err
			}
			c.held += c.codec.Length()
			c.queue = append(c.queue, next)
			return nil
		}
		earlier.superseded = true
		earlier.drop()
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

// drop has server-main give up a call whose result nobody waits for; c.mu is held.
func (over *call) drop() {
	c := over.conn
	if over.cancel != nil {
		over.cancel()
		return
	}
	c.served.Go(func() { // it waits if server-main is busy
		if over.pending.Cancel() {
			over.Complete(nil, context.Canceled)
		}
	})
}

// start begins to serve a call; c.mu is held.
func (c *conn) start(next *call) {
	if c.id == 0 {
		c.id = c.hub.register(c)
	}
	c.calls = append(c.calls, next)
	now := time.Now()
	c.hub.journal.call(now, c.api, c.peer, &next.message)
	next.span = c.hub.trace.Request(now, c.api, next.message.Name, c.id)
	if c.refused != nil {
		c.end(next, nil, c.refused)
		return
	}
	request := next.request()
	pending, started, err := c.hub.link.Start(&request, next)
	switch {
	case err != nil:
		c.end(next, nil, err)
	case started:
		next.pending = pending
		next.message.Args, next.message.Kwargs = nil, nil
	default:
		c.startLate(next)
	}
}

func (next *call) request() session.Call {
	c, m := next.conn, &next.message
	return session.Call{
		Session: c.id, API: c.api, Peer: c.peer, ID: next.id,
		Method: m.Name, Args: m.Args, Kwargs: m.Kwargs,
	}
}

// startLate serves a call while server-main is not there, or busy; c.mu is held.
func (c *conn) startLate(next *call) {
	ctx, cancel := context.WithCancel(c.ctx)
	next.cancel = cancel
	request := next.request()
	c.served.Go(func() {
		defer cancel()
		next.Complete(c.hub.link.Call(ctx, &request))
	})
}

// Complete is told the end of a call by the link to server-main: connector.Completion.
func (over *call) Complete(message []byte, err error) {
	c := over.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	c.end(over, message, over.explain(err))
}

// explain says what became of server-main.
func (over *call) explain(err error) error {
	switch {
	case errors.Is(err, connector.ErrPeerLost):
		return fmt.Errorf("the server process that served %s ended before its answer, and is being restarted", over.message.Name)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("the server is not ready: %w", err)
	}
	return err
}

// end answers a call, now or when the callbacks of its level are answered; c.mu is held.
func (c *conn) end(over *call, message []byte, err error) {
	over.span.End(err)
	if !c.closed && !over.superseded && len(c.callbacks) > over.level {
		over.over, over.result, over.err = true, bytes.Clone(message), err
		return
	}
	c.finish(over, message, err)
}

// finish answers a call, and starts the one that waited for it; c.mu is held.
func (c *conn) finish(over *call, message []byte, err error) {
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
		c.hub.journal.printf(time.Now(), "%v: exception: %v", c.peer, err)
		message, err = rpc.Append(nil, c.mode, rpc.Message{Kind: rpc.Exception, Name: rpc.OneLine(err.Error())})
	}
	if err == nil {
		err = c.write(message)
	}
	if err != nil { // the reading side will notice
		log.Printf("%v: %v", c.peer, err)
		c.nc.Close()
	}
}

package hub

import (
	"context"
	"errors"
	"slices"

	"github.com/waltos/waltos/services/daemon/session"
	"github.com/waltos/waltos/services/wire/pickle"
	"github.com/waltos/waltos/services/wire/rpc"
)

// callback is a message to the client that awaits its answer.
type callback struct{ answer chan any }

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
	for _, ended := range slices.Clone(c.calls) {
		if ended.over && len(c.callbacks) <= ended.level {
			c.finish(ended, ended.result, ended.err)
		}
	}
	c.changed.Broadcast()
	return nil
}

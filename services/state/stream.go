package state

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/waltos/waltos/services/daemon/connector"
)

// methodPart carries one part of the answer to a stream, back to the caller: streamPart.
const methodPart = "part"

// Stream answers one kind of call in parts, which together may be of any size. send hands
// over a part and returns once the caller has worked on it; its error says that no more
// is wanted.
type Stream func(ctx context.Context, decode func(any) error, send func(part any) error) error

type streamCall struct {
	ID  uint64 // chosen by the caller
	Arg []byte // CBOR
}

type streamPart struct {
	ID   uint64
	Part []byte // CBOR
}

// serveStream answers a call in parts.
func serveStream(ctx context.Context, p *connector.Peer, f Stream, body []byte) error {
	var call streamCall
	if err := connector.Decode(body, &call); err != nil {
		return fmt.Errorf("cannot decode the call of a stream: %w", err)
	}
	return f(ctx, func(v any) error { return connector.Decode(call.Arg, v) }, func(part any) error {
		encoded, err := connector.Encode(part)
		if err != nil {
			return err
		}
		return p.Call(ctx, methodPart, streamPart{call.ID, encoded}, nil)
	})
}

// receivers are the streams that a watcher reads.
type receivers struct {
	mu   sync.Mutex
	last uint64
	all  map[uint64]*receiver
}

type receiver struct {
	mu   sync.Mutex // held while take works
	take func(decode func(any) error) error
	over bool
}

var errNotWanted = errors.New("nobody takes this answer any more")

// Stream asks server-main for an answer in parts, and calls take with each: one at a time,
// never after Stream has returned. An error of take ends the stream.
func (w *Watcher) Stream(ctx context.Context, method string, arg any, take func(decode func(any) error) error) error {
	encoded, err := connector.Encode(arg)
	if err != nil {
		return err
	}
	r := &receiver{take: take}
	w.streams.mu.Lock()
	w.streams.last++
	id := w.streams.last
	if w.streams.all == nil {
		w.streams.all = map[uint64]*receiver{}
	}
	w.streams.all[id] = r
	w.streams.mu.Unlock()
	defer func() {
		w.streams.mu.Lock()
		delete(w.streams.all, id)
		w.streams.mu.Unlock()
		r.mu.Lock() // until take has returned
		defer r.mu.Unlock()
		r.over = true
	}()
	return w.remote.Call(ctx, method, streamCall{id, encoded}, nil)
}

// part hands a part to who reads its stream.
func (s *receivers) part(body []byte) error {
	var part streamPart
	if err := connector.Decode(body, &part); err != nil {
		return fmt.Errorf("cannot decode a part of a stream: %w", err)
	}
	s.mu.Lock()
	r := s.all[part.ID]
	s.mu.Unlock()
	if r == nil {
		return errNotWanted
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over {
		return errNotWanted
	}
	return r.take(func(v any) error { return connector.Decode(part.Part, v) })
}

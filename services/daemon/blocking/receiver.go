package blocking

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/waltos/waltos/services/daemon/connector"
)

// Work that finds many things tells each while it goes on: the caller of the work is
// called back, by the number of a receiver. The work waits until what it told was taken,
// so that neither side gathers more than one.

const tellMethod = "tell"

// telling is the argument of that call.
type telling struct {
	To   uint64
	Body []byte
}

// tell gives a value to a receiver of the caller.
func tell(ctx context.Context, caller *connector.Peer, to uint64, v any) error {
	body, err := connector.Encode(v)
	if err != nil {
		return err
	}
	return caller.Call(ctx, tellMethod, telling{to, body}, nil)
}

// receivers are the calls that are told things, by number.
type receivers struct {
	mu   sync.Mutex
	last uint64
	all  map[uint64]*receiver
}

type receiver struct {
	mu   sync.Mutex
	take func(body []byte) error // nil after the end
}

var errOver = errors.New("the call is over")

// add returns the number of a receiver. take runs no more once end has returned.
func (r *receivers) add(take func(body []byte) error) (number uint64, end func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.all == nil {
		r.all = map[uint64]*receiver{}
	}
	r.last++
	number = r.last
	added := &receiver{take: take}
	r.all[number] = added
	return number, func() {
		r.mu.Lock()
		delete(r.all, number)
		r.mu.Unlock()
		added.mu.Lock()
		defer added.mu.Unlock()
		added.take = nil
	}
}

// handle serves the calls of server-blocking: a connector.Handler.
func (r *receivers) handle(_ context.Context, _ *connector.Peer, method string, body []byte) (any, error) {
	if method != tellMethod {
		return nil, fmt.Errorf("server-blocking calls %s, which there is not", method)
	}
	return with(body, func(t telling) (any, error) {
		r.mu.Lock()
		to := r.all[t.To]
		r.mu.Unlock()
		if to == nil {
			return nil, errOver
		}
		to.mu.Lock()
		defer to.mu.Unlock()
		if to.take == nil {
			return nil, errOver
		}
		return nil, to.take(t.Body)
	})
}

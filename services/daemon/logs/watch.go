package logs

import (
	"context"
	"errors"
	"sync"

	"github.com/waltos/waltos/services/daemon/db"
	"github.com/waltos/waltos/services/daemon/logs/ere"
)

// maxUnread is the size of the lines that may wait for one watcher. It must hold
// those that arrive while a history is being sent.
const maxUnread = 32 << 20

// errSlow ends a watcher that does not read.
var errSlow = errors.New("its reader is too slow")

// watcher receives, in real time, the lines that pass its filter.
type watcher struct {
	issuers map[string]bool // nil: all
	streams *ere.Expr       // nil: all
	lines   *ere.Expr       // nil: all; applied by next, in the time of the reader

	mu      sync.Mutex
	blocks  []block
	size    int
	slow    bool
	arrived chan struct{}
}

// block is a batch as watchers see it. It is shared by them.
type block struct {
	issuer, stream string
	rows           db.Rows
}

// offer is called with each batch, in order.
func (w *watcher) offer(issuer, stream string, rows db.Rows) {
	if w.issuers != nil && !w.issuers[issuer] || w.streams != nil && !w.streams.Match(stream) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	size := batchCost + len(rows)
	if w.size+size > maxUnread && w.size > 0 {
		w.slow, w.blocks = true, nil
	}
	if !w.slow {
		w.blocks = append(w.blocks, block{issuer, stream, rows})
		w.size += size
	}
	select {
	case w.arrived <- struct{}{}:
	default:
	}
}

// next waits for lines.
func (w *watcher) next(ctx context.Context) ([]block, error) {
	for {
		w.mu.Lock()
		found, slow := w.blocks, w.slow
		w.blocks, w.size = nil, 0
		w.mu.Unlock()
		if slow {
			return nil, errSlow
		}
		if len(found) > 0 {
			return found, nil
		}
		select {
		case <-w.arrived:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (h *Hub) unwatch(w *watcher) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.watchers, w)
}

package nodes

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Idle measures how long nodes that nobody owns are left alone (server-state §2.13).
type Idle struct {
	after   time.Duration
	expired func(ctx context.Context, macs []string)

	mu    sync.Mutex
	since map[string]time.Time // by MAC
	wake  chan struct{}        // capacity 1
}

// NewIdle returns a measure that calls expired with the nodes, by MAC, that were left
// alone for that long; their time begins again. Run must be started.
func NewIdle(after time.Duration, expired func(ctx context.Context, macs []string)) *Idle {
	return &Idle{after: after, expired: expired, since: map[string]time.Time{}, wake: make(chan struct{}, 1)}
}

// Follow begins to measure a node, unless that has begun before.
func (i *Idle) Follow(mac string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if _, followed := i.since[mac]; followed {
		return
	}
	i.since[mac] = time.Now()
	select {
	case i.wake <- struct{}{}:
	default:
	}
}

// Leave stops measuring a node.
func (i *Idle) Leave(mac string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.since, mac)
}

// Restart begins again with nodes; those that are not measured stay so.
func (i *Idle) Restart(macs ...string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, mac := range macs {
		if _, followed := i.since[mac]; followed {
			i.since[mac] = time.Now()
		}
	}
}

// Run watches the clock until ctx ends.
func (i *Idle) Run(ctx context.Context) {
	timer := time.NewTimer(i.after)
	defer timer.Stop()
	for {
		macs, next := i.take()
		if len(macs) > 0 {
			i.expired(ctx, macs)
			continue
		}
		timer.Reset(next)
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-i.wake:
		}
	}
}

// take returns the nodes whose time has passed, or else how long that may take.
func (i *Idle) take() (macs []string, next time.Duration) {
	i.mu.Lock()
	defer i.mu.Unlock()
	now := time.Now()
	next = i.after
	for mac, since := range i.since {
		if left := i.after - now.Sub(since); left > 0 {
			next = min(next, left)
			continue
		}
		macs = append(macs, mac)
		i.since[mac] = now
	}
	slices.Sort(macs)
	return macs, next
}

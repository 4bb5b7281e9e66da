package nodes

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"
)

// Limits is how long a node may take to boot and how often it is helped.
type Limits struct {
	Timeout time.Duration // 0: for ever
	Retries int
}

// Monitor gives up on boots that take too long (server-state §2.9).
type Monitor struct {
	// Expired is called for each node that has not booted in time, one call at a time
	// per node. left is how many retries remain after this one.
	Expired func(ctx context.Context, mac string, left int)

	mu    sync.Mutex
	boots map[string]*boot // by MAC
	wake  chan struct{}    // capacity 1
}

type boot struct {
	limits  Limits
	left    int // retries
	start   time.Time
	booted  bool
	saving  bool // switched off to save power
	expired bool // Expired is running
}

// NewMonitor returns a monitor; Run must be started.
func NewMonitor(expired func(ctx context.Context, mac string, left int)) *Monitor {
	return &Monitor{Expired: expired, boots: map[string]*boot{}, wake: make(chan struct{}, 1)}
}

// change edits the state of one node, which is created if need be.
func (m *Monitor) change(mac string, edit func(*boot)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := m.boots[mac]
	if b == nil {
		b = &boot{start: time.Now()}
		m.boots[mac] = b
	}
	edit(b)
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Watch begins to follow a node, or takes over new limits: retries in use grow or shrink
// by the difference.
func (m *Monitor) Watch(mac string, limits Limits) {
	m.change(mac, func(b *boot) {
		b.left = max(0, b.left+limits.Retries-b.limits.Retries)
		b.limits = limits
	})
}

// Forget stops following a node.
func (m *Monitor) Forget(mac string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.boots, mac)
}

// Booted records that a node is booted.
func (m *Monitor) Booted(mac string) {
	m.change(mac, func(b *boot) { b.booted, b.saving = true, false })
}

// Down records that a node is not booted any more: it has the full time and all retries.
// saving tells that it was switched off on purpose.
func (m *Monitor) Down(mac string, saving bool) {
	m.change(mac, func(b *boot) {
		b.booted, b.saving, b.start, b.left = false, saving, time.Now(), b.limits.Retries
	})
}

// Starting records that a node which is not booted begins to boot now. Retries are
// refilled if a user asked for it.
func (m *Monitor) Starting(mac string, byUser bool) {
	m.change(mac, func(b *boot) {
		if !b.booted {
			b.start, b.saving = time.Now(), false
		}
		if byUser {
			b.left = b.limits.Retries
		}
	})
}

// Run watches the clock until ctx ends.
func (m *Monitor) Run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		timer.Reset(m.check(ctx, &running))
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-m.wake:
		}
	}
}

// check handles the boots that have expired, and returns the time to the next one.
func (m *Monitor) check(ctx context.Context, running *sync.WaitGroup) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := time.Hour
	for _, mac := range slices.Sorted(maps.Keys(m.boots)) {
		b := m.boots[mac]
		if b.booted || b.saving || b.expired || b.limits.Timeout == 0 || b.left == 0 {
			continue
		}
		if wait := time.Until(b.start.Add(b.limits.Timeout)); wait > 0 {
			next = min(next, wait)
			continue
		}
		b.left--
		b.start = time.Now()
		b.expired = true
		left := b.left
		running.Go(func() {
			m.Expired(ctx, mac, left)
			m.change(mac, func(b *boot) { b.expired = false })
		})
	}
	return next
}

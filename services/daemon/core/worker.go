package core

import (
	"context"
	"sync"
	"time"

	"github.com/waltos/waltos/services/daemon/trackexec"
)

// worker repeats one piece of work whenever it is asked to, one run at a time: what is
// asked during a run is done by one more run.
type worker struct {
	name  string
	work  func(ctx context.Context)
	pause time.Duration // least time between two runs

	mu     sync.Mutex
	asked  uint64 // number of requests
	done   uint64 // those that a finished run has served
	wake   chan struct{}
	change chan struct{} // closed when done grows
}

func newWorker(name string, work func(ctx context.Context), pause time.Duration) *worker {
	return &worker{name: name, work: work, pause: pause, wake: make(chan struct{}, 1), change: make(chan struct{})}
}

// poke asks for a run and returns at once.
func (w *worker) poke() {
	w.mu.Lock()
	w.asked++
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// settle returns when all that was asked before is done, or ctx ends.
func (w *worker) settle(ctx context.Context) error {
	w.mu.Lock()
	asked := w.asked
	for w.done < asked {
		change := w.change
		w.mu.Unlock()
		select {
		case <-change:
		case <-ctx.Done():
			return ctx.Err()
		}
		w.mu.Lock()
	}
	w.mu.Unlock()
	return nil
}

// run works until ctx ends.
func (w *worker) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		}
		w.mu.Lock()
		serving := w.asked
		w.mu.Unlock()
		task, span := trackexec.Begin(ctx, trackexec.Task, w.name)
		w.work(task)
		span.End(nil)
		w.mu.Lock()
		w.done = serving
		close(w.change)
		w.change = make(chan struct{})
		w.mu.Unlock()
		if w.pause == 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(w.pause):
		}
	}
}

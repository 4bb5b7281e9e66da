package control

import (
	"sync"

	"github.com/waltos/waltos/supervisor/unit"
)

// historySize is how many events are remembered: some days of a quiet server.
const historySize = 1024

// History remembers the last changes of units. Its methods may be called from any
// goroutine. Readers ask for what they have not seen, so that a slow one delays nobody.
type History struct {
	mu     sync.Mutex
	events []Event // the oldest first
	last   uint64
	more   chan struct{} // closed at the next event
}

// NewHistory returns an empty one.
func NewHistory() *History { return &History{more: make(chan struct{})} }

// Add notes a change.
func (h *History) Add(c unit.Change) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last++
	if len(h.events) == historySize {
		h.events = append(h.events[:0], h.events[1:]...)
	}
	h.events = append(h.events, Event{
		Number: h.last, Time: c.Time, Unit: c.Unit, From: c.Old, To: c.New, Reason: c.Reason, Took: c.Took,
	})
	close(h.more)
	h.more = make(chan struct{})
}

// After returns the events with a greater number, as far as they are remembered, and a
// channel that is closed when there are more.
func (h *History) After(number uint64) ([]Event, <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	first := h.last - uint64(len(h.events)) + 1
	skip := 0
	if number >= first {
		skip = min(int(number-first)+1, len(h.events))
	}
	return append([]Event(nil), h.events[skip:]...), h.more
}

// Last is the number of the last event.
func (h *History) Last() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.last
}

package vnode

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"
)

const (
	gatherTime = 50 * time.Millisecond // console output waits so long for more
	maxChunk   = 4096                  // bytes written at once: what a pipe takes whole
	maxWaiting = 1 << 20               // bytes of output that wait for their reader
	closeTime  = time.Second           // for what still waits at the end
)

// output is the console as others see it. Writes never wait and never fail: a reader
// that is too slow, or gone, must not hold the node up. It loses the oldest bytes and is
// told how many. A line feed without a carriage return gets one.
type output struct {
	out io.Writer
	log io.Writer // a copy; nil: none

	mu      sync.Mutex
	waiting []byte
	lost    int
	last    byte
	closed  bool
	changed chan struct{} // holds a token after a write
	done    chan struct{}
}

func newOutput(out, log io.Writer) *output {
	o := &output{out: out, log: log, changed: make(chan struct{}, 1), done: make(chan struct{})}
	go o.run()
	return o
}

// Write implements io.Writer.
func (o *output) Write(data []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, b := range data {
		if b == '\n' && o.last != '\r' {
			o.waiting = append(o.waiting, '\r')
		}
		o.waiting = append(o.waiting, b)
		o.last = b
	}
	if excess := len(o.waiting) - maxWaiting; excess > 0 {
		o.lost += excess
		o.waiting = o.waiting[excess:]
	}
	o.wake()
	return len(data), nil
}

func (o *output) wake() {
	select {
	case o.changed <- struct{}{}:
	default:
	}
}

// close writes what waits, if its reader takes it soon.
func (o *output) close() {
	o.mu.Lock()
	o.closed = true
	o.wake()
	o.mu.Unlock()
	timer := time.NewTimer(closeTime)
	defer timer.Stop()
	select {
	case <-o.done:
	case <-timer.C:
	}
}

func (o *output) run() {
	defer close(o.done)
	for range o.changed {
		time.Sleep(gatherTime)
		for {
			chunk, closed := o.take()
			if len(chunk) == 0 && closed {
				return
			}
			if len(chunk) == 0 {
				break
			}
			if o.log != nil {
				if _, err := o.log.Write(chunk); err != nil {
					o.log = nil // a full disk must not stop the node
				}
			}
			o.out.Write(chunk) // it may have no reader for now
		}
	}
}

// take returns the next chunk to write, and whether no more will come after all.
func (o *output) take() (chunk []byte, closed bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.lost > 0 {
		chunk = fmt.Appendf(nil, "\r\n[%d bytes of output are lost]\r\n", o.lost)
		o.lost = 0
		return chunk, o.closed
	}
	size := min(len(o.waiting), maxChunk)
	chunk = slices.Clone(o.waiting[:size])
	o.waiting = o.waiting[size:]
	return chunk, o.closed
}

// prefixer begins each line with a text.
type prefixer struct {
	w      io.Writer
	prefix string
	middle bool // of a line
}

func newPrefixer(w io.Writer, prefix string) io.Writer {
	if prefix == "" {
		return w
	}
	return &prefixer{w: w, prefix: "[" + prefix + "] "}
}

func (p *prefixer) Write(data []byte) (int, error) {
	var text bytes.Buffer
	for line := range bytes.Lines(data) {
		if !p.middle {
			text.WriteString(p.prefix)
		}
		text.Write(line)
		p.middle = line[len(line)-1] != '\n'
	}
	if _, err := p.w.Write(text.Bytes()); err != nil {
		return 0, err
	}
	return len(data), nil
}

// maxTyped is how many pieces of input wait for a virtual machine; more is lost.
const maxTyped = 256

// input is what is typed on the console: for the virtual machine that runs, or the
// shell of the boot.
type input struct{ typed chan []byte }

func newInput() *input { return &input{make(chan []byte, maxTyped)} }

// send never waits.
func (i *input) send(data []byte) {
	if len(data) == 0 {
		return
	}
	select {
	case i.typed <- slices.Clone(data):
	default:
	}
}

// feed writes what is typed until ctx ends or the machine reads no more.
func (i *input) feed(ctx context.Context, to io.Writer) {
	for {
		select {
		case data := <-i.typed:
			if _, err := to.Write(data); err != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// reader returns a reader of what is typed, until ctx ends.
func (i *input) reader(ctx context.Context) io.Reader { return &typist{input: i, ctx: ctx} }

type typist struct {
	*input
	ctx  context.Context
	left []byte
}

func (t *typist) Read(p []byte) (int, error) {
	if len(t.left) == 0 {
		select {
		case t.left = <-t.typed:
		case <-t.ctx.Done():
			return 0, context.Cause(t.ctx)
		}
	}
	n := copy(p, t.left)
	t.left = t.left[n:]
	return n, nil
}

package fetch

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// Progress tells a person what is going on: on a terminal one line that changes, else
// a line now and then. A nil Progress is silent.
type Progress struct {
	mu    sync.Mutex
	w     io.Writer
	live  bool
	start time.Time
	shown int // width of the live line
}

// NewProgress writes to w, usually os.Stderr.
func NewProgress(w io.Writer) *Progress {
	p := &Progress{w: w, start: time.Now()}
	if f, ok := w.(*os.File); ok {
		p.live = term.IsTerminal(int(f.Fd()))
	}
	return p
}

// Say prints a line with the time since the start.
func (p *Progress) Say(format string, args ...any) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	fmt.Fprintf(p.w, "%s %s\n", p.elapsed(), fmt.Sprintf(format, args...))
}

func (p *Progress) elapsed() string {
	return fmt.Sprintf("[%6.1fs]", time.Since(p.start).Seconds())
}

func (p *Progress) clear() {
	if p.shown > 0 {
		fmt.Fprintf(p.w, "\r%s\r", strings.Repeat(" ", p.shown))
		p.shown = 0
	}
}

// Task is work of known size.
type Task struct {
	p      *Progress
	what   string
	total  int64
	done   int64
	start  time.Time
	next   time.Time
	ending sync.Once
}

// Begin starts a task of the given number of bytes.
func (p *Progress) Begin(total int64, format string, args ...any) *Task {
	t := &Task{p: p, what: fmt.Sprintf(format, args...), total: total, start: time.Now()}
	t.next = t.start.Add(t.interval())
	if p != nil && !p.live {
		p.Say("%s: %s", t.what, size(total))
	}
	return t
}

func (t *Task) interval() time.Duration {
	if t.p != nil && t.p.live {
		return 100 * time.Millisecond
	}
	return 10 * time.Second
}

// Add counts bytes that are done; negative ones when work has to be repeated.
func (t *Task) Add(n int64) {
	p := t.p
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	t.done += n
	now := time.Now()
	if now.Before(t.next) {
		return
	}
	t.next = now.Add(t.interval())
	line := fmt.Sprintf("%s %s: %s of %s", p.elapsed(), t.what, size(t.done), size(t.total))
	if seconds := now.Sub(t.start).Seconds(); seconds > 0.5 {
		line += fmt.Sprintf(", %s/s", size(int64(float64(t.done)/seconds)))
	}
	if !p.live {
		fmt.Fprintln(p.w, line)
		return
	}
	p.clear()
	fmt.Fprint(p.w, line)
	p.shown = len(line)
}

// End closes the task.
func (t *Task) End(err error) {
	t.ending.Do(func() {
		if t.p == nil {
			return
		}
		took := time.Since(t.start).Seconds()
		if err != nil {
			t.p.Say("%s: failed after %.1f s", t.what, took)
			return
		}
		t.p.Say("%s: %s in %.1f s", t.what, size(t.total), took)
	})
}

func size(n int64) string {
	switch {
	case n >= 10e6:
		return fmt.Sprintf("%d MB", n/1e6)
	case n >= 1e6:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	default:
		return fmt.Sprintf("%d kB", (n+999)/1000)
	}
}

package machine

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
	"time"
)

const (
	maxLine     = 4096     // of one line; what is longer is split
	maxLines    = 50_000   // kept in memory; the oldest are forgotten
	maxLog      = 64 << 20 // bytes of the log file; it stops there
	maxAttached = 256      // chunks waiting for an attached reader; it loses what is more
)

// failures are what no console of a healthy machine shows. Programs that start none, but
// hold this package, do without.
var failures = sync.OnceValue(func() []*regexp.Regexp {
	return []*regexp.Regexp{
		regexp.MustCompile(`Kernel panic`),
		regexp.MustCompile(`\bOops\b`),
		regexp.MustCompile(`\bBUG: `),
		regexp.MustCompile(`Out of memory`),
		regexp.MustCompile(`verity.*(corrupt|I/O error|verification failed)`),
		regexp.MustCompile(`EXT4-fs error|EROFS.*error`),
		regexp.MustCompile(`walt: fatal`),
		regexp.MustCompile(`walt: \S+: FAILED: .*given up`),
		regexp.MustCompile(`No bootable device\.\s*$`), // a BIOS that does not retry
		regexp.MustCompile(`BdsDxe: No bootable option`),
	}
})

// Console is what a machine wrote on its serial line, in lines without colour and
// cursor sequences, and the way to type on it.
type Console struct {
	name  string
	start time.Time
	conn  io.ReadWriteCloser
	log   io.Writer     // each line, after the seconds since the start
	done  chan struct{} // closed when all is read

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced when anything below changes
	lines    []string
	dropped  int    // lines forgotten, before lines[0]
	partial  []byte // of the line being written
	escape   escapeState
	logged   int
	allowed  []*regexp.Regexp
	failure  *Failure
	ended    bool
	attached map[chan []byte]bool
}

// Failure is a line that a console must not show.
type Failure struct {
	Machine string
	Line    string
	After   time.Duration // since the start of the machine
}

func (f *Failure) Error() string {
	return fmt.Sprintf("%s failed after %.1f s: %s", f.Machine, f.After.Seconds(), strings.TrimSpace(f.Line))
}

func newConsole(name string, conn io.ReadWriteCloser, log io.Writer) *Console {
	return &Console{
		name: name, start: time.Now(), conn: conn, log: log, done: make(chan struct{}),
		changed: make(chan struct{}), attached: map[chan []byte]bool{},
	}
}

// Position is a place on a console: a number of lines.
type Position int

// Position returns the end of what is written so far.
func (c *Console) Position() Position {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Position(c.dropped + len(c.lines))
}

// Allow says that lines matching a pattern are no failure, even those that are.
func (c *Console) Allow(pattern *regexp.Regexp) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.allowed = append(c.allowed, pattern)
}

// Failure returns the first failure shown, or nil.
func (c *Console) Failure() *Failure {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failure
}

// Lines returns the last n lines, the one being written included.
func (c *Console) Lines(n int) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := c.lines[max(0, len(c.lines)-n):]
	result := append(make([]string, 0, len(all)+1), all...)
	if len(c.partial) > 0 {
		result = append(result, string(c.partial))
	}
	return result[max(0, len(result)-n):]
}

// Wait returns the first line at or after a position that matches, and the position
// after it. A line without its end, as a prompt, matches too; the position is then
// before it. It fails when the console shows a failure first, when the machine ends, or
// with the context.
func (c *Console) Wait(ctx context.Context, from Position, pattern *regexp.Regexp) (string, Position, error) {
	return c.wait(ctx, from, pattern, true)
}

// WaitLine is Wait for lines that have ended.
func (c *Console) WaitLine(ctx context.Context, from Position, pattern *regexp.Regexp) (string, Position, error) {
	return c.wait(ctx, from, pattern, false)
}

func (c *Console) wait(ctx context.Context, from Position, pattern *regexp.Regexp, partial bool) (string, Position, error) {
	for {
		c.mu.Lock()
		for int(from)-c.dropped < len(c.lines) {
			line := c.lines[max(0, int(from)-c.dropped)]
			from = max(from, Position(c.dropped)) + 1
			if pattern.MatchString(line) {
				c.mu.Unlock()
				return line, from, nil
			}
		}
		if partial && pattern.Match(c.partial) {
			line := string(c.partial)
			c.mu.Unlock()
			return line, from, nil
		}
		changed, failure, ended := c.changed, c.failure, c.ended
		c.mu.Unlock()
		switch {
		case failure != nil:
			return "", from, fmt.Errorf("cannot wait for %q: %w", pattern, failure)
		case ended:
			return "", from, fmt.Errorf("cannot wait for %q: %s has ended", pattern, c.name)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return "", from, fmt.Errorf("console of %s did not show %q: %w", c.name, pattern, context.Cause(ctx))
		}
	}
}

// Write types on the console.
func (c *Console) Write(keys []byte) (int, error) { return c.conn.Write(keys) }

// Attach returns what the console shows from now on, as it is; a reader that is too
// slow loses a part. The channel is closed when the machine ends or at detach.
func (c *Console) Attach() (output <-chan []byte, detach func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	channel := make(chan []byte, maxAttached)
	if c.ended {
		close(channel)
		return channel, func() {}
	}
	c.attached[channel] = true
	return channel, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.attached[channel] {
			delete(c.attached, channel)
			close(channel)
		}
	}
}

// run reads the console until the machine ends.
func (c *Console) run() {
	defer close(c.done)
	buffer := make([]byte, 4096)
	for {
		n, err := c.conn.Read(buffer)
		c.mu.Lock()
		c.take(buffer[:n])
		if err != nil {
			c.finish()
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
	}
}

func (c *Console) take(data []byte) {
	if len(data) == 0 {
		return
	}
	for _, b := range data {
		c.takeByte(b)
	}
	for channel := range c.attached {
		select {
		case channel <- append([]byte(nil), data...):
		default:
		}
	}
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *Console) takeByte(b byte) {
	if !c.escape.prints(b) {
		return
	}
	switch {
	case b == '\n':
		c.endLine()
	case b == '\b' && len(c.partial) > 0:
		c.partial = c.partial[:len(c.partial)-1]
	case b == '\t' || b >= ' ' && b != 0x7f:
		if c.partial = append(c.partial, b); len(c.partial) == maxLine {
			c.endLine()
		}
	}
}

func (c *Console) endLine() {
	line := strings.ToValidUTF8(string(c.partial), "?")
	c.partial = c.partial[:0]
	after := time.Since(c.start)
	if c.log != nil && c.logged < maxLog {
		n, err := fmt.Fprintf(c.log, "[%8.3f] %s\n", after.Seconds(), line)
		if c.logged += n; err != nil {
			c.log = nil // a full disk must not stop the machine
		}
	}
	if len(c.lines) == maxLines {
		c.dropped += maxLines / 2
		c.lines = append(c.lines[:0], c.lines[maxLines/2:]...)
	}
	c.lines = append(c.lines, line)
	if c.failure == nil && matches(failures(), line) && !matches(c.allowed, line) {
		c.failure = &Failure{Machine: c.name, Line: line, After: after}
	}
}

func matches(patterns []*regexp.Regexp, line string) bool {
	for _, p := range patterns {
		if p.MatchString(line) {
			return true
		}
	}
	return false
}

func (c *Console) finish() {
	if len(c.partial) > 0 {
		c.endLine()
	}
	c.ended = true
	for channel := range c.attached {
		close(channel)
	}
	clear(c.attached)
	close(c.changed)
	c.changed = make(chan struct{})
}

// escapeState follows the control sequences of a terminal (ECMA-48).
type escapeState int

const (
	plain    escapeState = iota
	escaped              // after ESC
	sequence             // after ESC [
)

// prints tells whether a byte belongs to the text.
func (s *escapeState) prints(b byte) bool {
	switch *s {
	case escaped:
		if b >= 0x20 && b <= 0x2f { // as in "ESC ( B", which chooses letters: the last byte follows
			return false
		}
		*s = plain
		if b == '[' {
			*s = sequence
		}
		return false
	case sequence:
		if b >= 0x40 && b <= 0x7e {
			*s = plain
		}
		return false
	}
	if b == 0x1b {
		*s = escaped
		return false
	}
	return true
}

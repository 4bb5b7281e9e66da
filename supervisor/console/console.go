// Package console tells people what the machine does: one line at a time, on every
// console of the kernel.
//
// Lines go through /dev/kmsg, so that they neither tear nor get torn by kernel messages,
// reach all consoles named on the kernel command line, carry the time since boot, and
// are kept by the kernel until the journal can be written. Where that cannot be opened
// they go to standard error.
package console

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"unicode"
)

// Prefix begins each line.
const Prefix = "walt: "

// maxRecord is what /dev/kmsg takes in one write (LOG_LINE_MAX of printk, less its
// prefix).
const maxRecord = 900

// Levels of lines, as of syslog(3); the console shows what is more urgent than its own.
const (
	critical = 2
	notice   = 5
)

// Console writes lines. Its methods may be called from any goroutine and never fail.
type Console struct {
	mu   sync.Mutex
	kmsg *os.File // nil: standard error
}

// Open opens the kernel log for writing.
func Open() *Console {
	// Without this, more than a few lines a second are dropped.
	_ = os.WriteFile("/proc/sys/kernel/printk_devkmsg", []byte("on\n"), 0)
	f, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0)
	if err != nil {
		f = nil
	}
	return &Console{kmsg: f}
}

// ShowNotices makes the kernel print on its consoles what is a notice or worse: our
// lines and its own warnings, not the debug output of drivers.
func ShowNotices() { _ = os.WriteFile("/proc/sys/kernel/printk", []byte("6\n"), 0) }

// Say prints what happened; each line of the text becomes one of the console.
func (c *Console) Say(format string, args ...any) { c.print(notice, fmt.Sprintf(format, args...)) }

// Alarm prints what somebody must act upon; even a quiet console shows it.
func (c *Console) Alarm(format string, args ...any) { c.print(critical, fmt.Sprintf(format, args...)) }

func (c *Console) print(level int, text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for line := range strings.Lines(text) {
		line = Clean(line)
		for first := true; first || line != ""; first = false {
			part := line[:min(len(line), maxRecord)]
			line = line[len(part):]
			c.write(level, Prefix+part)
		}
	}
}

func (c *Console) write(level int, line string) {
	if c.kmsg != nil {
		if _, err := fmt.Fprintf(c.kmsg, "<%d>%s\n", level, line); err == nil {
			return
		}
	}
	fmt.Fprintln(os.Stderr, line)
}

// Clean replaces what a terminal would obey, or what would change the order of what it
// shows: control characters of both sets, and invisible ones.
func Clean(line string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n':
			return -1
		case r == '\t':
			return ' '
		case unicode.IsControl(r) || unicode.Is(unicode.Cf, r):
			return '?'
		}
		return r
	}, strings.ToValidUTF8(line, "?"))
}

// Package trackexec traces the execution of the daemon (server-state §5.8): which requests,
// tasks, statements, commands and streams it had, when, for how long, within which other,
// with which outcome, and when it was idle.
//
// An administrator enables it by making the folder /var/log/walt/trackexec and restarting
// the daemon; without the folder at the start of a process, nothing is recorded. The trace
// of process P is in /var/log/walt/trackexec/<YYMMDD-HHMMSS>/P, in the format of package
// format, and latest is a link to the folder of the present run. The tools
// walt-server-trackexec-replay and walt-server-trackexec-analyse read it.
//
// A run begins with each start of server-main, which is root: it makes the folder of the
// run, and one in it for each process of the daemon, which it gives to the user of that
// process. So no process needs to write elsewhere, and whatever the owner and the mode of
// the folder that the administrator made. The other processes wait for their folder, hold
// meanwhile what they record, and go on in that of a new run when server-main restarts. One
// that restarts alone continues the trace that it has in the run.
//
// The traced code never waits for the disk: events are gathered in memory and written each
// second, when there are many, and at the end. If they come faster than they can be written,
// they are dropped, and an event tells how many. An operation that lasts is written as it
// begins, too, so a trace of a process that was killed tells what it was doing.
//
// A trace takes at most 128 MiB in each process and run; beyond that its oldest part is
// removed. The last 8 runs are kept. When a trace cannot be written, or less than 256 MiB
// would be left on the disk, tracing stops until the process restarts, with one message.
package trackexec

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/waltos/waltos/services/daemon/trackexec/format"
)

// Root is the folder whose existence enables tracing.
const Root = "/var/log/walt/trackexec"

// Usage is that of the flag -trackexec of the processes.
const Usage = "`folder` whose existence enables execution tracing"

// Config is what a trace is written with. Zero values have defaults.
type Config struct {
	Root    string
	Process string // as "server-hub"

	// Warn tells why tracing stops; default: a line on stderr.
	Warn func(format string, args ...any)

	Period  time.Duration // between two writes; default 1 s
	Segment int64         // size of a segment; default 4 MiB
	Size    int64         // size of a trace; default 128 MiB
	Runs    int           // runs that are kept; default 8
	Reserve int64         // space left on the disk; default 256 MiB, -1: none
}

func setDefault[T comparable](value *T, usual T) {
	var zero T
	if *value == zero {
		*value = usual
	}
}

// Open returns the recorder of a process, or nil if its folder does not exist: a nil
// Recorder records nothing. Close ends it.
func Open(c Config) *Recorder {
	if info, err := os.Stat(c.Root); err != nil || !info.IsDir() {
		return nil
	}
	setDefault(&c.Period, time.Second)
	setDefault(&c.Segment, 4<<20)
	setDefault(&c.Size, 128<<20)
	setDefault(&c.Runs, 8)
	setDefault(&c.Reserve, 256<<20)
	if c.Warn == nil {
		c.Warn = func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
	}
	now := time.Now()
	r := &Recorder{base: now, lastID: uint64(now.UnixNano()), wake: make(chan struct{}, 1), stop: make(chan struct{}), ended: make(chan struct{}), block: &format.Block{}, free: -1}
	w := &writer{Config: c, recorder: r}
	r.record(&format.Event{ID: r.newID(), Kind: format.Life, State: format.Done, Number: int64(os.Getpid()), Name: c.Process})
	go func() {
		defer close(r.ended)
		w.run()
	}()
	return r
}

// OpenFlag is Open with what the flag -trackexec of a process says.
func OpenFlag(root, process string) *Recorder { return Open(Config{Root: root, Process: process}) }

// Kinds of operations.
const (
	Request = format.Request
	Task    = format.Task
	SQL     = format.SQL
	Command = format.Command
	Stream  = format.Stream
)

// Begin begins an operation within the one that ctx is of, with its recorder. Without any,
// nothing is recorded. The context returned is for what is done within the operation.
func Begin(ctx context.Context, kind format.Kind, name string) (context.Context, Span) {
	parent := spanOf(ctx)
	return parent.recorder.beginWithin(ctx, parent, kind, name)
}

// Package format is the file format of execution traces: events, the blocks that hold
// them, and the index of the blocks. It is our own; numbers are little-endian, and
// varints those of encoding/binary.
//
// A trace is a folder:
//
//	pid          decimal number of the process, and a newline
//	log_index    one entry of 36 bytes for each block, in the order of writing
//	log_map/<n>  segment n: blocks one after the other
//
// An index entry is: segment u32, offset u32, size u32 (of the block with its header),
// number of events u32, time of the first event i64, time of the last one i64, CRC-32C of
// the 32 bytes before u32. Times are nanoseconds since 1970, in UTC.
//
// A block has a header of 32 bytes: "WTX1"; CRC-32C of all that follows u32; size of the
// body u32; size of the body once expanded u32; number of events u32; 1 if the body is
// compressed (S2 block format), else 0, u32; time of the block i64. Its body has the events,
// each of:
//
//	kind            byte; bits 0-3: Kind, 4-6: State, 7: Announced
//	id              varint, less that of the previous event
//	parent          uvarint, how much less than id; 0: none
//	start           varint, less that of the previous event; the first: less the block's
//	duration        uvarint
//	depth           byte
//	number          varint
//	name, detail, failure   texts
//
// A text is a uvarint: 0 for "", 1 for a new one, that follows with its length (uvarint), and
// n+2 for the new one number n of this block. So a block can be read without any other, and
// what is damaged is lost alone. Decoding refuses blocks beyond MaxBody, and never takes more
// memory than a multiple of it.
package format

// Kind says what an event is.
type Kind uint8

const (
	Request Kind = iota + 1 // a call of an API, or of another process; Number: the session
	Task                    // a piece of work: a workflow, one of its steps, a long operation
	SQL                     // a statement; Number: rows
	Command                 // an external process; Number: exit status
	Stream                  // a connection that lasts
	Idle                    // nothing was under way but streams
	Life                    // the process began to write; Number: its pid
	Lost                    // events were dropped, because they came too fast; Number: how many
)

var kinds = [...]string{Request: "request", Task: "task", SQL: "sql", Command: "command", Stream: "stream", Idle: "idle", Life: "start", Lost: "lost"}

func (k Kind) String() string {
	if k == 0 || int(k) >= len(kinds) {
		return "unknown"
	}
	return kinds[k]
}

// State says how an operation is, or how it ended.
type State uint8

const (
	Open      State = iota // under way; an event with its end follows, unless the process died
	Done                   // ended well
	Failed                 // ended with an error
	Cancelled              // ended because nobody waited for it any more
)

var states = [...]string{"open", "done", "failed", "cancelled"}

func (s State) String() string {
	if int(s) >= len(states) {
		return "unknown"
	}
	return states[s]
}

// Event is one operation that has ended or, if it lasts, its beginning or its end.
type Event struct {
	ID       uint64 // unique in a trace; greater than that of earlier operations
	Parent   uint64 // operation that it is a part of; 0: none
	Start    int64  // nanoseconds since 1970, in UTC
	Duration int64  // nanoseconds; 0 while it is open
	Number   int64  // as its kind says; -1: none
	Kind     Kind
	State    State
	// Announced tells that this is the end of an operation whose beginning is an event of
	// its own.
	Announced bool
	Depth     uint8  // number of operations that it is within, 255 at most
	Name      string // of the method, statement, program...
	Detail    string // as the API or the arguments
	Failure   string // why it failed
}

// Time is the moment that an event belongs to: when the operation began, or, if its
// beginning is another event, when it ended.
func (e *Event) Time() int64 {
	if e.Announced {
		return e.Start + e.Duration
	}
	return e.Start
}

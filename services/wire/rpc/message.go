// Package rpc is the framing of the two TCP services of a WalT server: the request
// line that opens every connection (client-api 1.1, node-protocols 3.1), and the
// messages of API sessions on port 12345 in both their modes (client-api 1.3, 1.4).
//
// It serves both ends. What is read is bounded in length and contents; a peer that
// sends anything else is to be cut off.
package rpc

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/waltos/waltos/services/wire/literal"
	"github.com/waltos/waltos/services/wire/pickle"
)

// Mode says how messages are written.
type Mode string

// The modes of an API session; it begins with Lines.
const (
	Lines  Mode = "line-repr-eval"
	Pickle Mode = "pickle4"
)

// Kind is the first item of a message.
type Kind string

// The kinds of messages.
const (
	SetMode   Kind = "SET_MODE"
	APICall   Kind = "API_CALL"
	Result    Kind = "RESULT"
	Exception Kind = "EXCEPTION"
	Close     Kind = "CLOSE" // and whatever is unknown, as upstream has it
)

// Message is one message of an API session.
type Message struct {
	Kind   Kind
	Name   string       // APICall: the method; SetMode: the mode; Exception: the text
	Args   pickle.Tuple // APICall
	Kwargs *pickle.Dict // APICall
	Value  any          // Result
}

// tuple returns the message as it is sent.
func (m Message) tuple() pickle.Tuple {
	switch m.Kind {
	case APICall:
		return pickle.Tuple{string(m.Kind), m.Name, m.Args, m.Kwargs}
	case Result:
		return pickle.Tuple{string(m.Kind), m.Value}
	case SetMode, Exception:
		return pickle.Tuple{string(m.Kind), m.Name}
	}
	return pickle.Tuple{string(m.Kind)}
}

// parse checks the form of a message.
func parse(v any) (Message, error) {
	t, ok := v.(pickle.Tuple)
	if !ok || len(t) == 0 {
		return Message{Kind: Close}, nil // as the ('CLOSE') of scripts, which is no tuple
	}
	kind, _ := t[0].(string)
	m := Message{Kind: Kind(kind)}
	switch m.Kind {
	case APICall:
		if len(t) != 4 {
			return m, fmt.Errorf("a message API_CALL has %d elements instead of 4", len(t))
		}
		var okName, okArgs, okKwargs bool
		m.Name, okName = t[1].(string)
		m.Kwargs, okKwargs = t[3].(*pickle.Dict)
		switch args := t[2].(type) {
		case pickle.Tuple:
			m.Args, okArgs = args, true
		case *pickle.List:
			m.Args, okArgs = args.Items, true
		}
		if !okName || !okArgs || !okKwargs {
			return m, errors.New("a message API_CALL has elements of wrong types")
		}
		for _, e := range m.Kwargs.Entries() {
			if _, ok := e.Key.(string); !ok {
				return m, errors.New("a message API_CALL has a keyword that is not a str")
			}
		}
		return m, nil
	case Result:
		if len(t) != 2 {
			return m, fmt.Errorf("a message RESULT has %d elements instead of 2", len(t))
		}
		m.Value = t[1]
		return m, nil
	case SetMode, Exception:
		if len(t) == 2 {
			m.Name, ok = t[1].(string)
		}
		if len(t) != 2 || !ok {
			return m, fmt.Errorf("a message %s does not hold one str", m.Kind)
		}
		return m, nil
	}
	return Message{Kind: Close}, nil
}

// Codec reads and writes the messages of one API session. One goroutine may read
// while another writes; SetMode is for the reading one.
type Codec struct {
	r       *bufio.Reader
	w       io.Writer
	maxLine int
	reading Mode
	pickles *pickle.Decoder
	length  int
	out     []byte
}

// maxLine bounds messages in mode Lines. Official clients only send SET_MODE in it,
// scripts of nodes short calls.
const maxLine = 256 << 10

// NewCodec returns a codec in the initial mode. The limits are those of messages read;
// their Size bounds lines too.
func NewCodec(r *bufio.Reader, w io.Writer, limits pickle.Limits) *Codec {
	if limits.Size == 0 {
		limits.Size = 1 << 20
	}
	return &Codec{r: r, w: w, maxLine: int(min(limits.Size, maxLine)), reading: Lines, pickles: pickle.NewDecoder(r, limits)}
}

// SetMode changes the mode of the messages read from now on.
func (c *Codec) SetMode(m Mode) error {
	if m != Lines && m != Pickle {
		return fmt.Errorf("cannot change mode: %.40q is not one", m)
	}
	c.reading = m
	return nil
}

// Wait waits for the first byte of the next message.
func (c *Codec) Wait() error {
	_, err := c.r.Peek(1)
	return err
}

// Read reads the next message. The error is io.EOF, unwrapped, if the stream ends
// before it.
func (c *Codec) Read() (Message, error) {
	var v any
	if c.reading == Pickle {
		var err error
		if v, err = c.pickles.Decode(); err != nil {
			return Message{}, err
		}
		c.length = c.pickles.Length()
	} else {
		line, err := ReadLine(c.r, c.maxLine)
		if err != nil {
			return Message{}, err
		}
		c.length = len(line)
		if v, err = literal.Parse(line); err != nil {
			return Message{}, err
		}
	}
	m, err := parse(v)
	if err != nil {
		return m, fmt.Errorf("cannot accept message: %w", err)
	}
	return m, nil
}

// Length is that of the message read latest.
func (c *Codec) Length() int { return c.length }

// Append appends the bytes of a message to a buffer.
func Append(buf []byte, mode Mode, m Message) ([]byte, error) {
	if mode == Pickle && m.Kind == Result {
		return pickle.AppendPair(buf, string(Result), m.Value)
	}
	return appendValue(buf, mode, m.tuple())
}

func appendValue(buf []byte, mode Mode, v any) ([]byte, error) {
	if mode == Pickle {
		return pickle.Append(buf, v)
	}
	text, err := literal.Format(v)
	if err != nil {
		return nil, err
	}
	return append(append(buf, text...), '\n'), nil
}

// Transcode returns, as a message of the given mode, what was encoded in mode Pickle
// by a process of ours.
func Transcode(mode Mode, message []byte) ([]byte, error) {
	if mode == Pickle {
		return message, nil
	}
	v, err := pickle.Unmarshal(message, pickle.Limits{Size: int64(len(message)) * 8, Depth: 100, Values: 1 << 20, Datetime: true})
	if err != nil {
		return nil, err
	}
	return appendValue(nil, mode, v)
}

// maxOut is how large a buffer for writing is kept.
const maxOut = 64 << 10

// Write writes a message.
func (c *Codec) Write(mode Mode, m Message) error {
	data, err := Append(c.out[:0], mode, m)
	if err != nil {
		return err
	}
	if cap(data) <= maxOut {
		c.out = data
	}
	_, err = c.w.Write(data)
	return err
}

// OneLine makes a text fit for an EXCEPTION.
func OneLine(text string) string {
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' }), " ")
	const limit = 1000
	if len(text) > limit {
		text = strings.ToValidUTF8(text[:limit], "") + "..."
	}
	return text
}

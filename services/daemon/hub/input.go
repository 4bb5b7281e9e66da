package hub

import (
	"net"
	"time"
)

// input is what a client sends, with limits in time: messages may be far from each
// other, but what has begun must go on. A deadline costs more than most messages, so it
// is only set for those that did not come at once.
type input struct {
	net.Conn
	begun bool // a message has
	armed bool // and has a deadline of its own
	set   bool // a deadline is set
}

// Read is that of net.Conn.
func (i *input) Read(p []byte) (int, error) {
	if i.begun && !i.armed {
		i.armed = true
		if err := i.limit(messageTime); err != nil {
			return 0, err
		}
	}
	return i.Conn.Read(p)
}

// limit bounds the time to the end of the next message.
func (i *input) limit(d time.Duration) error {
	i.set = true
	return i.SetReadDeadline(time.Now().Add(d))
}

// begin is told that a message is to be read; the limit before it, if any, is replaced if
// the message is not there yet.
func (i *input) begin() { i.begun, i.armed = true, false }

// done lifts the limit after a message.
func (i *input) done() error {
	i.begun = false
	if !i.set {
		return nil
	}
	i.set = false
	return i.SetReadDeadline(time.Time{})
}

package session

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"

	"github.com/waltos/waltos/services/daemon/connector"
	"github.com/waltos/waltos/services/wire/pickle"
)

// Methods of the connector, and their arguments.
const (
	methodCall     = "session.call"     // Call → pickle of ("RESULT", value)
	methodCallback = "session.callback" // callbackRequest → callbackReply
	methodEnd      = "session.end"      // notification: number of the session
)

// Call is one call of a client.
type Call struct {
	Session uint64
	API     string
	Peer    netip.Addr
	ID      uint64 // unique within the session, not 0
	Method  string
	Args    pickle.Tuple
	Kwargs  *pickle.Dict
}

// AppendBody is that of connector.Body: session, number, API, method and address, the
// texts with their length before them, then the pickle of (args, kwargs).
func (c *Call) AppendBody(buf []byte) ([]byte, error) {
	buf = binary.AppendUvarint(buf, c.Session)
	buf = binary.AppendUvarint(buf, c.ID)
	buf = appendText(buf, c.API)
	buf = appendText(buf, c.Method)
	address, length := len(buf), 0
	buf = append(buf, 0)
	if c.Peer.IsValid() {
		as16 := c.Peer.As16()
		length = len(as16)
		buf = append(buf, as16[:]...)
	}
	buf[address] = byte(length)
	return pickle.AppendPair(buf, c.Args, c.Kwargs)
}

func appendText(buf []byte, s string) []byte {
	buf = binary.AppendUvarint(buf, uint64(len(s)))
	return append(buf, s...)
}

// callRequest is a Call as server-main reads it; it shares the memory of the message.
type callRequest struct {
	session, id uint64
	api, method []byte
	peer        []byte
	args        []byte // pickle of (args, kwargs)
}

var errRequest = errors.New("server-hub sent a call that is not understood")

func parseCall(body []byte) (r callRequest, err error) {
	ok := true
	number := func() uint64 {
		v, n := binary.Uvarint(body)
		if n <= 0 {
			ok, body = false, nil
			return 0
		}
		body = body[n:]
		return v
	}
	text := func() []byte {
		n := number()
		if n > uint64(len(body)) {
			ok, body = false, nil
			return nil
		}
		s := body[:n]
		body = body[n:]
		return s
	}
	r.session, r.id = number(), number()
	r.api, r.method, r.peer = text(), text(), text()
	r.args = body
	if !ok || !slices.Contains([]int{0, 16}, len(r.peer)) {
		return r, errRequest
	}
	return r, nil
}

// address is that of the client.
func (r *callRequest) address() netip.Addr {
	address, _ := netip.AddrFromSlice(r.peer)
	return address.Unmap()
}

type callbackRequest struct {
	Session uint64
	Call    uint64 // the pending call that it belongs to; 0: any
	Message []byte // pickle of the whole message to the client
}

type callbackReply struct {
	Gone  bool   // the client has disconnected
	Value []byte // pickle of the result
}

// forwarded are the limits of what one of our processes sends the other. They are
// wider than those of clients, because writing a value again may make it longer.
var forwarded = pickle.Limits{Size: connector.MaxFrame, Depth: 100, Values: 1 << 20}

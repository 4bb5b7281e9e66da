package connector

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/fxamacker/cbor/v2"
)

// MaxFrame is the size, in bytes, that no frame exceeds.
const MaxFrame = 16 << 20

// Kinds of frames.
const (
	kindCall   = iota + 1 // ID, Method, Body: the argument
	kindReply             // ID, Body: the reply
	kindError             // ID, Method: the message
	kindCancel            // ID of a call that nobody waits for any more
	kindNotify            // Method, Body: the argument
)

// frame is one message. IDs are chosen by the side that calls.
type frame struct {
	_      struct{} `cbor:",toarray"`
	Kind   uint8
	ID     uint64
	Method string
	Body   cbor.RawMessage
}

// modes are the CBOR options of both ends: times keep their nanoseconds and zone
// offset, and what a peer sends is bounded in depth.
type modes struct {
	enc cbor.EncMode
	dec cbor.DecMode
}

var cborModes = newModes()

func newModes() modes {
	enc, err := cbor.EncOptions{Time: cbor.TimeRFC3339Nano, TimeTag: cbor.EncTagRequired}.EncMode()
	if err != nil {
		panic(err)
	}
	dec, err := cbor.DecOptions{MaxArrayElements: 1 << 21, MaxMapPairs: 1 << 20, MaxNestedLevels: 64}.DecMode()
	if err != nil {
		panic(err)
	}
	return modes{enc, dec}
}

// null is the CBOR of nil, the body of a call without argument.
var null = []byte{0xf6}

// Encode returns the body of a value: CBOR.
func Encode(v any) ([]byte, error) {
	if v == nil {
		return null, nil
	}
	return cborModes.enc.Marshal(v)
}

// Decode decodes the body of a call, notification or reply into v, a pointer.
func Decode(body []byte, v any) error { return cborModes.dec.Unmarshal(body, v) }

// appendFrame appends a frame, with its length, to a buffer.
func appendFrame(buf []byte, f *frame) ([]byte, error) {
	if f.Body == nil {
		f.Body = null
	}
	data, err := cborModes.enc.Marshal(f)
	if err != nil {
		return buf, err
	}
	if len(data) > MaxFrame {
		return buf, fmt.Errorf("a message of %d bytes is longer than %d", len(data), MaxFrame)
	}
	buf = binary.BigEndian.AppendUint32(buf, uint32(len(data)))
	return append(buf, data...), nil
}

// readFrame reads the next frame. Its memory grows with what has come.
func readFrame(r *bufio.Reader) (*frame, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > MaxFrame {
		return nil, fmt.Errorf("a message of %d bytes is longer than %d", n, MaxFrame)
	}
	const step = 256 << 10
	data := make([]byte, min(n, step))
	for have := uint32(0); ; {
		if _, err := io.ReadFull(r, data[have:]); err != nil {
			return nil, err
		}
		if have = uint32(len(data)); have == n {
			break
		}
		grown := make([]byte, min(n, 4*have))
		copy(grown, data)
		data = grown
	}
	f := &frame{}
	if err := cborModes.dec.Unmarshal(data, f); err != nil {
		return nil, fmt.Errorf("a message is not understood: %w", err)
	}
	return f, nil
}

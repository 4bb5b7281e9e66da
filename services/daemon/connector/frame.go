package connector

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/fxamacker/cbor/v2"
)

// MaxFrame is the size, in bytes, that no frame exceeds.
const MaxFrame = 16 << 20

// Kinds of frames.
const (
	kindCall   = iota + 1 // ID, text: the method, body: the argument
	kindReply             // ID, body: the reply
	kindError             // ID, text: the message
	kindCancel            // ID of a call that nobody waits for any more
	kindNotify            // text: the method, body: the argument
	kindHello             // the side that listens has accepted the connection
	kindEnd
)

// frame is one message: a kind, an ID, a text and a body. On the wire it is
//
//	length of the rest: 32 bits, big endian
//	kind: 8 bits
//	ID: varint; chosen by the side that calls
//	length of the text: varint, and the text
//	body: what remains
//
// It is written by hand because every call of a client is four of them.
type frame struct {
	kind uint8
	id   uint64
	text string
	body []byte
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

// A Body is an argument or a reply with an encoding of its own in the place of CBOR.
type Body interface {
	// AppendBody appends it to a buffer. It must not wait.
	AppendBody(buf []byte) ([]byte, error)
}

// Raw is a body that is encoded already. A reply can be read into a *Raw.
type Raw []byte

// AppendBody is that of Body.
func (r Raw) AppendBody(buf []byte) ([]byte, error) { return append(buf, r...), nil }

// Encode returns the body of a value: CBOR, unless it is a Body.
func Encode(v any) ([]byte, error) {
	switch v := v.(type) {
	case Body:
		return v.AppendBody(nil)
	case nil:
		return null, nil
	}
	return cborModes.enc.Marshal(v)
}

// encode returns a value as a Body.
func encode(v any) (Body, error) {
	if body, ok := v.(Body); ok {
		return body, nil
	}
	data, err := Encode(v)
	return Raw(data), err
}

// Decode decodes the body of a call, notification or reply into v, a pointer.
func Decode(body []byte, v any) error {
	if raw, ok := v.(*Raw); ok {
		*raw = body
		return nil
	}
	return cborModes.dec.Unmarshal(body, v)
}

// beginFrame appends a frame up to its body; endFrame completes it.
func beginFrame(buf []byte, kind uint8, id uint64, text string) []byte {
	buf = append(buf, 0, 0, 0, 0, kind)
	buf = binary.AppendUvarint(buf, id)
	buf = binary.AppendUvarint(buf, uint64(len(text)))
	return append(buf, text...)
}

// endFrame completes the frame that began at start.
func endFrame(buf []byte, start int) error {
	n := len(buf) - start - 4
	if n > MaxFrame {
		return fmt.Errorf("a message of %d bytes is longer than %d", n, MaxFrame)
	}
	binary.BigEndian.PutUint32(buf[start:], uint32(n))
	return nil
}

// appendFrame appends a frame; if that fails, the buffer is as before.
func appendFrame(buf []byte, kind uint8, id uint64, text string, body Body) ([]byte, error) {
	start := len(buf)
	longer := beginFrame(buf, kind, id, text)
	if body != nil {
		var err error
		if longer, err = body.AppendBody(longer); err != nil {
			return buf, err
		}
	}
	if err := endFrame(longer, start); err != nil {
		return buf, err
	}
	return longer, nil
}

var errFrame = errors.New("a message is not understood")

// reader reads frames. Its memory grows with what has come.
type reader struct {
	r     *bufio.Reader
	used  int               // bytes of r that the latest frame is made of
	texts map[string]string // seen, so that the usual ones are not allocated again
}

// maxTexts bounds the texts remembered.
const maxTexts = 256

func newReader(r io.Reader) *reader {
	return &reader{r: bufio.NewReaderSize(r, 64<<10), texts: map[string]string{}}
}

// next reads the next frame; its body is valid until the one after it is read.
func (r *reader) next() (frame, error) {
	r.r.Discard(r.used)
	r.used = 0
	head, err := r.r.Peek(4)
	if err != nil {
		if len(head) > 0 && err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return frame{}, err
	}
	n := int(binary.BigEndian.Uint32(head))
	if n > MaxFrame {
		return frame{}, fmt.Errorf("a message of %d bytes is longer than %d", n, MaxFrame)
	}
	if 4+n > r.r.Size() {
		data, err := r.large(n)
		if err != nil {
			return frame{}, err
		}
		return r.parse(data)
	}
	data, err := r.r.Peek(4 + n)
	if err != nil {
		return frame{}, unexpected(err)
	}
	r.used = 4 + n
	return r.parse(data[4:])
}

// large reads a frame that the buffer cannot hold.
func (r *reader) large(n int) ([]byte, error) {
	r.r.Discard(4)
	const step = 256 << 10
	data := make([]byte, min(n, step))
	for have := 0; ; {
		if _, err := io.ReadFull(r.r, data[have:]); err != nil {
			return nil, unexpected(err)
		}
		if have = len(data); have == n {
			return data, nil
		}
		grown := make([]byte, min(n, 4*have))
		copy(grown, data)
		data = grown
	}
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// more tells whether another frame has come already.
func (r *reader) more() bool {
	buffered := r.r.Buffered() - r.used
	if buffered < 4 {
		return false
	}
	data, _ := r.r.Peek(r.used + 4)
	return uint64(buffered) >= 4+uint64(binary.BigEndian.Uint32(data[r.used:]))
}

func (r *reader) parse(data []byte) (frame, error) {
	if len(data) == 0 || data[0] == 0 || data[0] >= kindEnd {
		return frame{}, errFrame
	}
	f := frame{kind: data[0]}
	data = data[1:]
	id, n := binary.Uvarint(data)
	if n <= 0 {
		return frame{}, errFrame
	}
	length, m := binary.Uvarint(data[n:])
	if m <= 0 || length > uint64(len(data)-n-m) {
		return frame{}, errFrame
	}
	text := data[n+m:][:length]
	f.id, f.body = id, data[n+m+int(length):]
	f.text = r.text(text)
	return f, nil
}

// text returns data as a string.
func (r *reader) text(data []byte) string {
	const longest = 64
	if s, known := r.texts[string(data)]; known {
		return s
	}
	s := string(data)
	if len(s) <= longest && len(r.texts) < maxTexts {
		r.texts[s] = s
	}
	return s
}

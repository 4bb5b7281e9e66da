package format

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/klauspost/compress/s2"
)

const (
	// HeaderSize is the size of the header of a block, and MaxBody the greatest of its
	// body, expanded.
	HeaderSize = 32
	MaxBody    = 1 << 20

	// FullBody is the size that makes a block worth writing.
	FullBody = 64 << 10

	// MaxText is the longest text of an event; longer ones are cut.
	MaxText = 1 << 10

	// compressible is the least size of a body that is compressed.
	compressible = 512

	// leastEvent is the size of the smallest event.
	leastEvent = 10
)

var (
	magic = [4]byte{'W', 'T', 'X', '1'}
	table = crc32.MakeTable(crc32.Castagnoli)
)

// Block gathers events until they are written. Its zero value is empty.
type Block struct {
	body        []byte
	events      uint32
	texts       map[string]uint64
	base        int64
	lastID      uint64
	lastStart   int64
	lastTexts   [3]text // of the previous event
	first, last int64
}

// Empty tells that the block has no event, and Full that it should be written.
func (b *Block) Empty() bool { return b.events == 0 }
func (b *Block) Full() bool  { return len(b.body) >= FullBody }

// Add adds an event. A block that is full must not get more.
func (b *Block) Add(e *Event) {
	if b.Empty() {
		if b.texts == nil {
			b.texts = map[string]uint64{}
		}
		b.base, b.lastStart = e.Start, e.Start
		b.first, b.last = e.Time(), e.Time()
	}
	b.first, b.last = min(b.first, e.Time()), max(b.last, e.Time())
	head := byte(e.Kind) | byte(e.State)<<4
	if e.Announced {
		head |= 1 << 7
	}
	body := append(b.body, head)
	body = binary.AppendVarint(body, int64(e.ID-b.lastID))
	var parent uint64
	if e.Parent != 0 {
		parent = e.ID - e.Parent
	}
	body = binary.AppendUvarint(body, parent)
	body = binary.AppendVarint(body, e.Start-b.lastStart)
	body = binary.AppendUvarint(body, uint64(max(e.Duration, 0)))
	body = append(body, e.Depth)
	body = binary.AppendVarint(body, e.Number)
	body = b.text(body, e.Name, &b.lastTexts[0])
	body = b.text(body, e.Detail, &b.lastTexts[1])
	b.body = b.text(body, e.Failure, &b.lastTexts[2])
	b.lastID, b.lastStart = e.ID, e.Start
	b.events++
}

// text is one of a block, with its number.
type text struct {
	text   string
	number uint64
}

// text appends a text; last is that of the previous event, which is often the same.
func (b *Block) text(body []byte, s string, last *text) []byte {
	if s == "" {
		return append(body, 0)
	}
	if len(s) > MaxText {
		s = s[:MaxText]
	}
	if s == last.text {
		return binary.AppendUvarint(body, last.number+2)
	}
	n, known := b.texts[s]
	if !known {
		n = uint64(len(b.texts))
		b.texts[s] = n
	}
	*last = text{s, n}
	if known {
		return binary.AppendUvarint(body, n+2)
	}
	body = binary.AppendUvarint(append(body, 1), uint64(len(s)))
	return append(body, s...)
}

// Append appends the block to data, and empties it. Its times are taken to be after epoch,
// in nanoseconds since 1970. The index entry lacks its place.
func (b *Block) Append(data []byte, epoch int64) ([]byte, Entry) {
	begin := len(data)
	data = slices.Grow(data, HeaderSize+s2.MaxEncodedLen(len(b.body)))
	header := data[begin : begin+HeaderSize]
	body := data[begin+HeaderSize : begin+HeaderSize+len(b.body)]
	compressed := uint32(0)
	if len(b.body) >= compressible {
		if packed := s2.Encode(data[begin+HeaderSize:cap(data)], b.body); len(packed) < len(b.body) {
			body, compressed = packed, 1
		}
	}
	if compressed == 0 {
		copy(body, b.body)
	}
	data = data[:begin+HeaderSize+len(body)]
	copy(header, magic[:])
	for i, n := range []uint32{uint32(len(body)), uint32(len(b.body)), b.events, compressed} {
		binary.LittleEndian.PutUint32(header[8+4*i:], n)
	}
	binary.LittleEndian.PutUint64(header[24:], uint64(b.base+epoch))
	binary.LittleEndian.PutUint32(data[begin+4:], crc32.Checksum(data[begin+8:], table))
	entry := Entry{Size: uint32(len(data) - begin), Events: b.events, First: b.first + epoch, Last: b.last + epoch}
	clear(b.texts)
	b.body, b.events, b.lastID, b.lastTexts = b.body[:0], 0, 0, [3]text{}
	return data, entry
}

// Size returns the size of the block, its header included, that a header begins.
func Size(header []byte) (int, error) {
	if len(header) < HeaderSize || [4]byte(header) != magic {
		return 0, errors.New("cannot find a block: its header is missing")
	}
	size, expanded := binary.LittleEndian.Uint32(header[8:]), binary.LittleEndian.Uint32(header[12:])
	if size > expanded || expanded > MaxBody {
		return 0, fmt.Errorf("cannot read a block of %d bytes made of %d", expanded, size)
	}
	return HeaderSize + int(size), nil
}

// Decode returns the events of a block.
func Decode(block []byte) ([]Event, error) {
	size, err := Size(block)
	if err != nil {
		return nil, err
	}
	if size != len(block) {
		return nil, fmt.Errorf("cannot read a block of %d bytes: it has %d", size, len(block))
	}
	if crc32.Checksum(block[8:], table) != binary.LittleEndian.Uint32(block[4:]) {
		return nil, errors.New("cannot read a block: its checksum is wrong")
	}
	expanded, events := binary.LittleEndian.Uint32(block[12:]), binary.LittleEndian.Uint32(block[16:])
	body := block[HeaderSize:]
	if compressed := binary.LittleEndian.Uint32(block[20:]); compressed != 0 {
		if n, err := s2.DecodedLen(body); err != nil || n != int(expanded) {
			return nil, errors.New("cannot expand a block: its size is wrong")
		}
		if body, err = s2.Decode(nil, body); err != nil {
			return nil, fmt.Errorf("cannot expand a block: %w", err)
		}
	}
	if len(body) != int(expanded) || int(events) > len(body)/leastEvent {
		return nil, errors.New("cannot read a block: its sizes are wrong")
	}
	d := decoder{body: body, start: int64(binary.LittleEndian.Uint64(block[24:]))}
	list := make([]Event, events)
	for i := range list {
		d.event(&list[i])
	}
	if d.failed || len(d.body) > 0 {
		return nil, errors.New("cannot read a block: its events are malformed")
	}
	return list, nil
}

// decoder reads a body; after the first failure it returns zeroes.
type decoder struct {
	body   []byte
	failed bool
	texts  []string
	id     uint64
	start  int64
}

func (d *decoder) event(e *Event) {
	head := d.byte()
	e.Kind, e.State, e.Announced = Kind(head&0xf), State(head>>4&7), head>>7 != 0
	e.ID = d.id + uint64(d.signed())
	if parent := d.unsigned(); parent != 0 {
		e.Parent = e.ID - parent
	}
	e.Start = d.start + d.signed()
	duration := d.unsigned()
	if duration > 1<<62 {
		d.failed = true
	}
	e.Duration = int64(duration)
	e.Depth = d.byte()
	e.Number = d.signed()
	e.Name, e.Detail, e.Failure = d.text(), d.text(), d.text()
	d.id, d.start = e.ID, e.Start
}

func (d *decoder) byte() byte {
	if d.failed || len(d.body) == 0 {
		d.failed = true
		return 0
	}
	b := d.body[0]
	d.body = d.body[1:]
	return b
}

func (d *decoder) unsigned() uint64 {
	n, size := binary.Uvarint(d.body)
	return number(d, n, size)
}

func (d *decoder) signed() int64 {
	n, size := binary.Varint(d.body)
	return number(d, n, size)
}

func number[T int64 | uint64](d *decoder, n T, size int) T {
	if d.failed || size <= 0 {
		d.failed = true
		return 0
	}
	d.body = d.body[size:]
	return n
}

func (d *decoder) text() string {
	switch n := d.unsigned(); {
	case d.failed || n == 0:
		return ""
	case n >= 2:
		if n-2 >= uint64(len(d.texts)) {
			d.failed = true
			return ""
		}
		return d.texts[n-2]
	}
	size := d.unsigned()
	if d.failed || size > MaxText || size > uint64(len(d.body)) {
		d.failed = true
		return ""
	}
	text := string(d.body[:size])
	d.body = d.body[size:]
	d.texts = append(d.texts, text)
	return text
}

package pickle

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"time"
	"unicode/utf8"
)

// Limits bound what one pickle may hold. A zero field takes its default.
type Limits struct {
	Size   int64 // bytes of the message, and of its value written out without sharing; default 4 MiB
	Depth  int   // containers within containers; default 64
	Values int   // values, with those of the containers; default 262144

	// Grow, if not nil, is told about how many more bytes of memory a message takes,
	// before they are taken and but for the first few thousand. Its error ends the
	// decoding.
	Grow func(n int) error

	// Datetime also admits datetime.datetime without time zone, which servers send
	// and clients never do.
	Datetime bool
}

func (l Limits) orDefault() Limits {
	if l.Size == 0 {
		l.Size = 4 << 20
	}
	if l.Depth == 0 {
		l.Depth = 64
	}
	if l.Values == 0 {
		l.Values = 1 << 18
	}
	return l
}

// maxIntBytes bounds integers: arithmetic on long ones is not linear. The longest
// legitimate one is a key of 2048 bits.
const maxIntBytes = 4096

// Decoder reads the pickles of a stream, or those given to Unmarshal.
type Decoder struct {
	r      *bufio.Reader // nil: of Unmarshal only
	limits Limits

	window []byte // what of r has come already
	at     int    // position in it
	left   int64  // of limits.Size
	pushed int
	stack  []any
	marks  []int
	memo   []any
	buf    [8]byte
	words  map[string]any // seen, so that the usual ones are not allocated again
}

// Bounds of Decoder.words.
const (
	maxWords    = 64
	longestWord = 32
)

// NewDecoder returns a decoder of the pickles that follow each other on r. It
// takes from r the bytes of a pickle and not one more.
func NewDecoder(r *bufio.Reader, limits Limits) *Decoder {
	return &Decoder{r: r, limits: limits.orDefault(), words: map[string]any{}}
}

// Unmarshal decodes data, which must be exactly one pickle.
func Unmarshal(data []byte, limits Limits) (any, error) {
	d := Decoder{limits: limits.orDefault()}
	return d.Unmarshal(data)
}

// Unmarshal decodes data, which must be exactly one pickle.
func (d *Decoder) Unmarshal(data []byte) (any, error) {
	r := d.r
	defer func() { d.r, d.window, d.at = r, nil, 0 }()
	d.r, d.window, d.at = nil, data, 0
	v, err := d.decode()
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, err
	}
	if rest := len(data) - d.at; rest > 0 {
		return nil, fmt.Errorf("cannot decode pickle: %d bytes follow it", rest)
	}
	return v, nil
}

// These stand on the decoder's stack for the few callables it knows.
type global struct{ module, name string }

var (
	arrayMaker = global{"array", "_array_reconstructor"}
	arrayClass = global{"array", "array"}
	datetime   = global{"datetime", "datetime"}
)

// Length is that of the latest message.
func (d *Decoder) Length() int { return int(d.limits.Size - d.left) }

// Decode returns the value of the next pickle. The error is io.EOF, unwrapped, when
// the stream ends before its first byte.
func (d *Decoder) Decode() (any, error) {
	defer d.consume()
	return d.decode()
}

func (d *Decoder) decode() (any, error) {
	d.left = d.limits.Size
	d.pushed = 0
	defer func() { // keep no reference to the message, nor the memory of a large one
		d.stack, d.marks, d.memo = reuse(d.stack), d.marks[:0], reuse(d.memo)
	}()
	if d.at == len(d.window) {
		if err := d.refill(); err != nil {
			return nil, err
		}
	}
	first, err := d.byte()
	if err != nil {
		return nil, err
	}
	if first != opProto {
		return nil, fmt.Errorf("cannot decode pickle: it begins with byte %#02x instead of a protocol number", first)
	}
	if version, err := d.byte(); err != nil {
		return nil, err
	} else if version < 2 || version > 5 {
		return nil, fmt.Errorf("cannot decode pickle: its protocol %d is not supported", version)
	}
	for {
		op, err := d.byte()
		if err != nil {
			return nil, err
		}
		if op == opStop {
			break
		}
		if err := d.step(op); err != nil {
			return nil, fmt.Errorf("cannot decode pickle: at byte %d: %w", d.limits.Size-d.left, err)
		}
	}
	if len(d.stack) != 1 || len(d.marks) != 0 {
		return nil, fmt.Errorf("cannot decode pickle: it ends with %d values and %d marks on its stack", len(d.stack), len(d.marks))
	}
	v := d.stack[0]
	w := walk{size: d.limits.Size, values: d.limits.Values, depth: d.limits.Depth}
	if err := w.check(v, 0); err != nil {
		return nil, fmt.Errorf("cannot decode pickle: %w", err)
	}
	return v, nil
}

func reuse(s []any) []any {
	if cap(s) > 1024 {
		return nil
	}
	clear(s[:cap(s)])
	return s[:0]
}

const (
	opProto        = 0x80
	opFrame        = 0x95
	opStop         = '.'
	opMark         = '('
	opPop          = '0'
	opPopMark      = '1'
	opDup          = '2'
	opNone         = 'N'
	opTrue         = 0x88
	opFalse        = 0x89
	opBinInt       = 'J'
	opBinInt1      = 'K'
	opBinInt2      = 'M'
	opLong1        = 0x8a
	opLong4        = 0x8b
	opBinFloat     = 'G'
	opShortUnicode = 0x8c
	opBinUnicode   = 'X'
	opBinUnicode8  = 0x8d
	opShortBytes   = 'C'
	opBinBytes     = 'B'
	opBinBytes8    = 0x8e
	opEmptyTuple   = ')'
	opTuple        = 't'
	opTuple1       = 0x85
	opTuple2       = 0x86
	opTuple3       = 0x87
	opEmptyList    = ']'
	opAppend       = 'a'
	opAppends      = 'e'
	opEmptyDict    = '}'
	opSetItem      = 's'
	opSetItems     = 'u'
	opEmptySet     = 0x8f
	opAddItems     = 0x90
	opMemoize      = 0x94
	opBinPut       = 'q'
	opLongBinPut   = 'r'
	opBinGet       = 'h'
	opLongBinGet   = 'j'
	opStackGlobal  = 0x93
	opReduce       = 'R'
)

var (
	errStack = errors.New("its stack is too short")
	errMark  = errors.New("its mark is missing")
	errSize  = errors.New("it is too long")
	errMany  = errors.New("it holds too many values")
	errDeep  = errors.New("it is too deep")
	errOrder = errors.New("its memo is not in order")
)

// step executes one opcode.
func (d *Decoder) step(op byte) error {
	switch op {
	case opFrame:
		// A frame only says how much to read ahead, which is not for us to do.
		_, err := d.length(8)
		return err
	case opMark:
		d.marks = append(d.marks, len(d.stack))
		return d.count(1)
	case opPop:
		_, err := d.pop()
		return err
	case opPopMark:
		_, err := d.popMark()
		return err
	case opDup:
		top, err := d.top()
		if err != nil {
			return err
		}
		return d.push(top)
	case opNone:
		return d.push(nil)
	case opTrue:
		return d.push(true)
	case opFalse:
		return d.push(false)
	case opBinInt, opBinInt1, opBinInt2, opLong1, opLong4, opBinFloat:
		return d.number(op)
	case opShortUnicode, opBinUnicode, opBinUnicode8:
		data, err := d.sized(op, opShortUnicode, opBinUnicode)
		if err != nil {
			return err
		}
		return d.pushText(data)
	case opShortBytes, opBinBytes, opBinBytes8:
		data, err := d.sized(op, opShortBytes, opBinBytes)
		if err != nil {
			return err
		}
		return d.push(append([]byte{}, data...))
	case opEmptyTuple:
		return d.push(emptyTuple)
	case opTuple1, opTuple2, opTuple3:
		return d.shortTuple(int(op-opTuple1) + 1)
	case opTuple:
		items, err := d.popMark()
		if err != nil {
			return err
		}
		return d.push(Tuple(items))
	case opEmptyList:
		return d.push(&List{})
	case opEmptyDict:
		return d.push(&Dict{})
	case opEmptySet:
		return d.push(&Set{})
	case opAppend, opAppends, opSetItem, opSetItems, opAddItems:
		return d.fill(op)
	case opMemoize, opBinPut, opLongBinPut, opBinGet, opLongBinGet:
		return d.memory(op)
	case opStackGlobal:
		return d.stackGlobal()
	case opReduce:
		return d.reduce()
	}
	return fmt.Errorf("opcode %#02x is not accepted", op)
}

// emptyTuple is made once: most calls have one.
var emptyTuple any = Tuple{}

// pushText pushes a str.
func (d *Decoder) pushText(data []byte) error {
	if word, known := d.words[string(data)]; known {
		return d.push(word)
	}
	if !validText(data) {
		return errors.New("a str is not UTF-8")
	}
	var word any = string(data)
	if d.words != nil && len(data) <= longestWord && len(d.words) < maxWords {
		d.words[word.(string)] = word
	}
	return d.push(word)
}

func (d *Decoder) number(op byte) error {
	switch op {
	case opBinInt1:
		b, err := d.fixed(1)
		if err != nil {
			return err
		}
		return d.push(int64(b[0]))
	case opBinInt2:
		b, err := d.fixed(2)
		if err != nil {
			return err
		}
		return d.push(int64(binary.LittleEndian.Uint16(b)))
	case opBinInt:
		b, err := d.fixed(4)
		if err != nil {
			return err
		}
		return d.push(int64(int32(binary.LittleEndian.Uint32(b))))
	case opBinFloat:
		b, err := d.fixed(8)
		if err != nil {
			return err
		}
		return d.push(math.Float64frombits(binary.BigEndian.Uint64(b)))
	}
	width := 1
	if op == opLong4 {
		width = 4
	}
	n, err := d.length(width)
	if err != nil {
		return err
	}
	if n > maxIntBytes {
		return errors.New("an int is too long")
	}
	data, err := d.bytes(n)
	if err != nil {
		return err
	}
	return d.push(integer(data))
}

// integer returns the value of a little-endian two's complement number.
func integer(data []byte) any {
	if len(data) <= 8 {
		var v uint64
		for i, b := range data {
			v |= uint64(b) << (8 * i)
		}
		shift := 64 - 8*len(data)
		return int64(v<<shift) >> shift
	}
	reversed := make([]byte, len(data))
	for i, b := range data {
		reversed[len(data)-1-i] = b
	}
	v := new(big.Int).SetBytes(reversed)
	if reversed[0]&0x80 != 0 {
		v.Sub(v, new(big.Int).Lsh(big.NewInt(1), uint(8*len(data))))
	}
	if v.IsInt64() {
		return v.Int64()
	}
	return v
}

func (d *Decoder) shortTuple(n int) error {
	if d.available() < n {
		return errStack
	}
	at := len(d.stack) - n
	t := make(Tuple, n)
	copy(t, d.stack[at:])
	d.stack = d.stack[:at]
	return d.push(t)
}

// fill adds what is on the stack to the container below it.
func (d *Decoder) fill(op byte) error {
	var items []any
	var err error
	switch op {
	case opAppend:
		items, err = d.popN(1)
	case opSetItem:
		items, err = d.popN(2)
	default:
		items, err = d.popMark()
	}
	if err != nil {
		return err
	}
	target, err := d.top()
	if err != nil {
		return err
	}
	switch t := target.(type) {
	case *List:
		if op == opAppend || op == opAppends {
			t.Items = append(t.Items, items...)
			return nil
		}
	case *Dict:
		if op == opSetItem || op == opSetItems {
			if len(items)%2 != 0 {
				return errors.New("a dict has a key without value")
			}
			for i := 0; i < len(items); i += 2 {
				if err := t.set(items[i], items[i+1]); err != nil {
					return err
				}
			}
			return nil
		}
	case *Set:
		if op == opAddItems {
			return t.add(items)
		}
	}
	return fmt.Errorf("opcode %q does not apply to a value of type %s", op, typeName(target))
}

func (s *Set) add(items []any) error {
	for _, item := range items {
		n := s.seen.Len()
		if err := s.seen.set(item, nil); err != nil {
			return err
		}
		if s.seen.Len() > n {
			s.Items = append(s.Items, item)
		}
	}
	return nil
}

func (d *Decoder) memory(op byte) error {
	put := func(at int) error {
		top, err := d.top()
		if err != nil {
			return err
		}
		switch {
		case at < len(d.memo):
			d.memo[at] = top
		case at == len(d.memo): // every pickler counts from zero
			d.memo = append(d.memo, top)
		default:
			return errOrder
		}
		return d.count(1)
	}
	if op == opMemoize {
		return put(len(d.memo))
	}
	width := 1
	if op == opLongBinPut || op == opLongBinGet {
		width = 4
	}
	b, err := d.fixed(width)
	if err != nil {
		return err
	}
	at := int(b[0])
	if width == 4 {
		at = int(binary.LittleEndian.Uint32(b))
	}
	if op == opBinPut || op == opLongBinPut {
		return put(at)
	}
	if at >= len(d.memo) {
		return fmt.Errorf("it refers to item %d of a memo of %d", at, len(d.memo))
	}
	return d.push(d.memo[at])
}

func (d *Decoder) stackGlobal() error {
	items, err := d.popN(2)
	if err != nil {
		return err
	}
	module, _ := items[0].(string)
	name, _ := items[1].(string)
	g := global{module, name}
	if g == arrayMaker || g == arrayClass || g == datetime && d.limits.Datetime {
		return d.push(g)
	}
	return fmt.Errorf("it refers to %.40q of module %.40q, which is not accepted", name, module)
}

func (d *Decoder) reduce() error {
	items, err := d.popN(2)
	if err != nil {
		return err
	}
	args, _ := items[1].(Tuple)
	switch items[0] {
	case arrayMaker:
		v, err := newArray(args)
		if err != nil {
			return err
		}
		return d.push(v)
	case datetime:
		v, err := newDatetime(args)
		if err != nil {
			return err
		}
		return d.push(v)
	}
	return errors.New("it calls what cannot be called")
}

// newArray does what array._array_reconstructor(class, typecode, format, data)
// does for the type code 'h'.
func newArray(args Tuple) (Int16s, error) {
	const littleEndian, bigEndian = 4, 5 // machine format codes of the array module
	if len(args) != 4 || args[0] != arrayClass || args[1] != "h" {
		return nil, errors.New("it makes an array of another type than 'h'")
	}
	data, ok := args[3].([]byte)
	if !ok || len(data)%2 != 0 {
		return nil, errors.New("the data of an array is not made of 16-bit integers")
	}
	var order binary.ByteOrder
	switch args[2] {
	case int64(littleEndian):
		order = binary.LittleEndian
	case int64(bigEndian):
		order = binary.BigEndian
	default:
		return nil, errors.New("the machine format of an array is not that of 16-bit integers")
	}
	v := make(Int16s, len(data)/2)
	for i := range v {
		v[i] = int16(order.Uint16(data[2*i:]))
	}
	return v, nil
}

// newDatetime decodes the state of a datetime; the top bit of the month is its
// "fold", which a naive time of ours does not have.
func newDatetime(args Tuple) (time.Time, error) {
	var s []byte
	if len(args) == 1 {
		s, _ = args[0].([]byte)
	}
	if len(s) != 10 {
		return time.Time{}, errors.New("the state of a datetime is not 10 bytes")
	}
	micro := int(s[7])<<16 | int(s[8])<<8 | int(s[9])
	t := time.Date(int(s[0])<<8|int(s[1]), time.Month(s[2]), int(s[3]), int(s[4]), int(s[5]), int(s[6]), micro*1000, time.UTC)
	if t.Month() != time.Month(s[2]) || t.Day() != int(s[3]) || t.Hour() != int(s[4]) || t.Minute() != int(s[5]) || t.Second() != int(s[6]) || micro > 999999 {
		return time.Time{}, errors.New("a datetime is not a date")
	}
	return t, nil
}

// --- stack

func (d *Decoder) count(n int) error {
	d.pushed += n
	// Memoizing and marking count too: a legitimate message memoizes each value once.
	if d.pushed > 4*d.limits.Values {
		return errMany
	}
	if d.pushed%grain == 0 {
		return d.grow(grain * valueSize)
	}
	return nil
}

const (
	grain     = 64 // values between two looks at memory
	valueSize = 64 // about what one takes
)

// grow tells Grow that the message takes so many more bytes.
func (d *Decoder) grow(n int) error {
	if d.limits.Grow == nil {
		return nil
	}
	return d.limits.Grow(n)
}

func (d *Decoder) push(v any) error {
	d.stack = append(d.stack, v)
	return d.count(1)
}

// available is the number of values above the last mark.
func (d *Decoder) available() int {
	if n := len(d.marks); n > 0 {
		return len(d.stack) - d.marks[n-1]
	}
	return len(d.stack)
}

func (d *Decoder) top() (any, error) {
	if d.available() == 0 {
		return nil, errStack
	}
	return d.stack[len(d.stack)-1], nil
}

func (d *Decoder) pop() (any, error) {
	v, err := d.top()
	if err == nil {
		d.stack = d.stack[:len(d.stack)-1]
	}
	return v, err
}

// popN takes the last n values; they are valid until the next push.
func (d *Decoder) popN(n int) ([]any, error) {
	if d.available() < n {
		return nil, errStack
	}
	items := d.stack[len(d.stack)-n:]
	d.stack = d.stack[:len(d.stack)-n]
	return items, nil
}

// popMark takes a copy of the values above the last mark, and that mark.
func (d *Decoder) popMark() ([]any, error) {
	n := len(d.marks)
	if n == 0 {
		return nil, errMark
	}
	at := d.marks[n-1]
	d.marks = d.marks[:n-1]
	items := make([]any, len(d.stack)-at)
	copy(items, d.stack[at:])
	d.stack = d.stack[:at]
	return items, nil
}

// --- input

// consume takes from the stream what was decoded.
func (d *Decoder) consume() {
	d.r.Discard(d.at)
	d.window, d.at = nil, 0
}

// refill waits for more of the stream, all of the window having been decoded.
func (d *Decoder) refill() error {
	if d.r == nil {
		return io.EOF
	}
	d.consume()
	if _, err := d.r.Peek(1); err != nil {
		return err
	}
	d.window, _ = d.r.Peek(d.r.Buffered())
	return nil
}

func (d *Decoder) byte() (byte, error) {
	if d.left < 1 {
		return 0, fmt.Errorf("cannot decode pickle: it is longer than %d bytes", d.limits.Size)
	}
	if d.at == len(d.window) {
		if err := d.refill(); err != nil {
			return 0, fmt.Errorf("cannot decode pickle: %w", unexpected(err))
		}
	}
	b := d.window[d.at]
	d.at++
	d.left--
	return b, nil
}

// fixed reads n ≤ 8 bytes, valid until the next read.
func (d *Decoder) fixed(n int) ([]byte, error) {
	if int64(n) > d.left {
		return nil, errSize
	}
	d.left -= int64(n)
	if len(d.window)-d.at >= n {
		d.at += n
		return d.window[d.at-n : d.at], nil
	}
	return d.buf[:n], d.read(d.buf[:n])
}

// read fills data, that the window may not hold.
func (d *Decoder) read(data []byte) error {
	for {
		n := copy(data, d.window[d.at:])
		d.at += n
		if data = data[n:]; len(data) == 0 {
			return nil
		}
		if err := d.refill(); err != nil {
			return unexpected(err)
		}
	}
}

// length reads a length of the given width; one beyond the size limit is refused
// before anything is read or allocated for it.
func (d *Decoder) length(width int) (int, error) {
	b, err := d.fixed(width)
	if err != nil {
		return 0, err
	}
	var n uint64
	for i, c := range b {
		n |= uint64(c) << (8 * i)
	}
	if n > uint64(d.left) {
		return 0, errSize
	}
	return int(n), nil
}

func (d *Decoder) sized(op, short, medium byte) ([]byte, error) {
	width := 8
	switch op {
	case short:
		width = 1
	case medium:
		width = 4
	}
	n, err := d.length(width)
	if err != nil {
		return nil, err
	}
	return d.bytes(n)
}

// bytes reads n bytes, valid until the next read. Memory grows with what has really
// come, not with what a length pretends.
func (d *Decoder) bytes(n int) ([]byte, error) {
	d.left -= int64(n)
	if len(d.window)-d.at >= n {
		d.at += n
		return d.window[d.at-n : d.at], nil
	}
	const step = 64 << 10
	var data []byte
	for {
		have := len(data)
		grown := min(n, max(step, 2*have))
		if err := d.grow(grown - have); err != nil {
			return nil, err
		}
		data = append(make([]byte, 0, grown), data...)[:grown]
		if err := d.read(data[have:]); err != nil {
			return nil, err
		}
		if grown == n {
			return data, nil
		}
	}
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// walk checks a decoded value as it would be written out without sharing: a short
// message can describe a list of lists that doubles at each level, or that holds
// itself.
type walk struct {
	size   int64
	values int
	depth  int
}

func (w *walk) check(v any, depth int) error {
	if w.values--; w.values < 0 {
		return errMany
	}
	if depth > w.depth {
		return errDeep
	}
	cost := int64(1)
	var items []any
	switch v := v.(type) {
	case nil, bool, int64, float64, time.Time:
	case string:
		cost = int64(len(v))
	case []byte:
		cost = int64(len(v))
	case *big.Int:
		cost = int64(v.BitLen() / 8)
	case Int16s:
		cost = int64(2 * len(v))
	case Tuple:
		items = v
	case *List:
		items = v.Items
	case *Set:
		items = v.Items
	case *Dict:
		for _, e := range v.entries {
			if err := w.check(e.Key, depth+1); err != nil {
				return err
			}
			if err := w.check(e.Value, depth+1); err != nil {
				return err
			}
		}
	default:
		return errors.New("it holds a function or class")
	}
	if w.size -= cost; w.size < 0 {
		return errSize
	}
	for _, item := range items {
		if err := w.check(item, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// validText tells whether data is UTF-8, lone surrogates included.
func validText(data []byte) bool {
	if utf8.Valid(data) {
		return true
	}
	for len(data) > 0 {
		r, n := utf8.DecodeRune(data)
		if r == utf8.RuneError && n == 1 {
			if !surrogate(data) {
				return false
			}
			n = 3
		}
		data = data[n:]
	}
	return true
}

// surrogate tells whether data begins with the three bytes of a surrogate.
func surrogate[T string | []byte](data T) bool {
	return len(data) >= 3 && data[0] == 0xed && data[1] >= 0xa0 && data[1] <= 0xbf && data[2] >= 0x80 && data[2] <= 0xbf
}

package pickle

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// maxEncodeDepth ends the encoding of a value that holds itself.
const maxEncodeDepth = 200

// Marshal returns the pickle, of protocol 4, of a value. Besides what a Decoder
// returns it takes every kind of integer, float32, []any and []string (lists),
// map[string]any and map[string]string (dicts, keys sorted), and time.Time (a
// datetime.datetime without time zone, of its wall clock fields).
//
// A string that is not UTF-8 is sent with its wrong bytes replaced, because the
// reader would refuse it altogether.
func Marshal(v any) ([]byte, error) { return Append(nil, v) }

// Append appends the pickle of a value to a buffer.
func Append(buf []byte, v any) ([]byte, error) {
	start := len(buf)
	e := encoder{appendHead(buf)}
	if err := e.value(v, 0); err != nil {
		return nil, err
	}
	return e.end(start), nil
}

// AppendPair appends the pickle of the tuple (a, b), which most messages are.
func AppendPair(buf []byte, a, b any) ([]byte, error) {
	start := len(buf)
	e := encoder{appendHead(buf)}
	for _, v := range [...]any{a, b} {
		if err := e.value(v, 1); err != nil {
			return nil, err
		}
	}
	e.buf = append(e.buf, opTuple2)
	return e.end(start), nil
}

// headSize is the length of the protocol number and of the head of the frame.
const headSize = 2 + 9

func appendHead(buf []byte) []byte {
	return append(buf, opProto, 4, opFrame, 0, 0, 0, 0, 0, 0, 0, 0)
}

// end completes the pickle that began at start.
func (e *encoder) end(start int) []byte {
	buf := append(e.buf, opStop)
	body := len(buf) - start - headSize
	if body < 4 { // as Python does
		copy(buf[start+2:], buf[start+headSize:])
		return buf[:len(buf)-9]
	}
	binary.LittleEndian.PutUint64(buf[start+3:], uint64(body))
	return buf
}

type encoder struct{ buf []byte }

func (e *encoder) value(v any, depth int) error {
	if depth > maxEncodeDepth {
		return fmt.Errorf("cannot encode pickle: the value is deeper than %d", maxEncodeDepth)
	}
	switch v := v.(type) {
	case nil:
		e.buf = append(e.buf, opNone)
	case bool:
		if v {
			e.buf = append(e.buf, opTrue)
		} else {
			e.buf = append(e.buf, opFalse)
		}
	case string:
		e.text(v)
	case []byte:
		e.sized(opShortBytes, opBinBytes, opBinBytes8, len(v))
		e.buf = append(e.buf, v...)
	case int:
		e.int(int64(v))
	case int8:
		e.int(int64(v))
	case int16:
		e.int(int64(v))
	case int32:
		e.int(int64(v))
	case int64:
		e.int(v)
	case uint8:
		e.int(int64(v))
	case uint16:
		e.int(int64(v))
	case uint32:
		e.int(int64(v))
	case uint:
		e.uint(uint64(v))
	case uint64:
		e.uint(v)
	case *big.Int:
		e.big(v)
	case float32:
		e.float(float64(v))
	case float64:
		e.float(v)
	case time.Time:
		e.datetime(v)
	case Int16s:
		e.array(v)
	case Tuple:
		return e.tuple(v, depth)
	case *List:
		return e.items(opEmptyList, opAppends, v.Items, depth)
	case []any:
		return e.items(opEmptyList, opAppends, v, depth)
	case []string:
		e.buf = append(e.buf, opEmptyList, opMark)
		for _, s := range v {
			e.text(s)
		}
		e.buf = append(e.buf, opAppends)
	case *Set:
		return e.items(opEmptySet, opAddItems, v.Items, depth)
	case *Dict:
		e.buf = append(e.buf, opEmptyDict)
		if v.Len() == 0 {
			return nil
		}
		e.buf = append(e.buf, opMark)
		for _, entry := range v.Entries() {
			if err := e.value(entry.Key, depth+1); err != nil {
				return err
			}
			if err := e.value(entry.Value, depth+1); err != nil {
				return err
			}
		}
		e.buf = append(e.buf, opSetItems)
	case map[string]any:
		return dict(e, v, depth)
	case map[string]string:
		return dict(e, v, depth)
	default:
		return fmt.Errorf("cannot encode pickle: a value of type %T has no Python form", v)
	}
	return nil
}

func dict[V any](e *encoder, m map[string]V, depth int) error {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	e.buf = append(e.buf, opEmptyDict, opMark)
	for _, k := range keys {
		e.text(k)
		if err := e.value(m[k], depth+1); err != nil {
			return err
		}
	}
	e.buf = append(e.buf, opSetItems)
	return nil
}

func (e *encoder) tuple(t Tuple, depth int) error {
	if len(t) == 0 {
		e.buf = append(e.buf, opEmptyTuple)
		return nil
	}
	if len(t) > 3 {
		e.buf = append(e.buf, opMark)
	}
	for _, item := range t {
		if err := e.value(item, depth+1); err != nil {
			return err
		}
	}
	if len(t) > 3 {
		e.buf = append(e.buf, opTuple)
	} else {
		e.buf = append(e.buf, opTuple1+byte(len(t)-1))
	}
	return nil
}

// items writes a container that starts empty and is filled from a mark.
func (e *encoder) items(empty, fill byte, items []any, depth int) error {
	e.buf = append(e.buf, empty)
	if len(items) == 0 {
		return nil
	}
	e.buf = append(e.buf, opMark)
	for _, item := range items {
		if err := e.value(item, depth+1); err != nil {
			return err
		}
	}
	e.buf = append(e.buf, fill)
	return nil
}

// sized writes the opcode and length of a str or bytes.
func (e *encoder) sized(short, medium, long byte, n int) {
	switch {
	case n < 1<<8:
		e.buf = append(e.buf, short, byte(n))
	case n <= math.MaxUint32:
		e.buf = binary.LittleEndian.AppendUint32(append(e.buf, medium), uint32(n))
	default:
		e.buf = binary.LittleEndian.AppendUint64(append(e.buf, long), uint64(n))
	}
}

func (e *encoder) text(s string) {
	if !utf8.ValidString(s) {
		s = Text(s)
	}
	e.sized(opShortUnicode, opBinUnicode, opBinUnicode8, len(s))
	e.buf = append(e.buf, s...)
}

// Text returns s with every byte that is neither UTF-8 nor part of a lone
// surrogate replaced by U+FFFD.
func Text(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r != utf8.RuneError || n != 1:
			b.WriteString(s[:n])
		case surrogate(s):
			n = 3
			b.WriteString(s[:n])
		default:
			b.WriteRune(utf8.RuneError)
		}
		s = s[n:]
	}
	return b.String()
}

func (e *encoder) int(v int64) {
	switch {
	case v >= 0 && v < 1<<8:
		e.buf = append(e.buf, opBinInt1, byte(v))
	case v >= 0 && v < 1<<16:
		e.buf = binary.LittleEndian.AppendUint16(append(e.buf, opBinInt2), uint16(v))
	case v >= math.MinInt32 && v <= math.MaxInt32:
		e.buf = binary.LittleEndian.AppendUint32(append(e.buf, opBinInt), uint32(v))
	default:
		e.big(big.NewInt(v))
	}
}

func (e *encoder) uint(v uint64) {
	if v <= math.MaxInt64 {
		e.int(int64(v))
		return
	}
	e.big(new(big.Int).SetUint64(v))
}

func (e *encoder) big(v *big.Int) {
	if v.IsInt64() && v.Int64() >= math.MinInt32 && v.Int64() <= math.MaxInt32 {
		e.int(v.Int64())
		return
	}
	n := v.BitLen()/8 + 1 // one bit for the sign
	if v.Sign() < 0 {
		// -2^(8k-1) fits k bytes although its magnitude has 8k bits.
		n = new(big.Int).Not(v).BitLen()/8 + 1
		v = new(big.Int).Add(v, new(big.Int).Lsh(big.NewInt(1), uint(8*n)))
	}
	data := v.FillBytes(make([]byte, n))
	slices.Reverse(data)
	if n < 1<<8 {
		e.buf = append(e.buf, opLong1, byte(n))
	} else {
		e.buf = binary.LittleEndian.AppendUint32(append(e.buf, opLong4), uint32(n))
	}
	e.buf = append(e.buf, data...)
}

func (e *encoder) float(v float64) {
	e.buf = binary.BigEndian.AppendUint64(append(e.buf, opBinFloat), math.Float64bits(v))
}

func (e *encoder) global(g global) {
	e.text(g.module)
	e.text(g.name)
	e.buf = append(e.buf, opStackGlobal)
}

func (e *encoder) datetime(t time.Time) {
	e.global(datetime)
	year, month, day := t.Date()
	micro := t.Nanosecond() / 1000
	e.buf = append(e.buf, opShortBytes, 10,
		byte(year>>8), byte(year), byte(month), byte(day),
		byte(t.Hour()), byte(t.Minute()), byte(t.Second()),
		byte(micro>>16), byte(micro>>8), byte(micro),
		opTuple1, opReduce)
}

func (e *encoder) array(v Int16s) {
	e.global(arrayMaker)
	e.buf = append(e.buf, opMark)
	e.global(arrayClass)
	e.text("h")
	e.int(4) // machine format: 16-bit little endian
	e.sized(opShortBytes, opBinBytes, opBinBytes8, 2*len(v))
	for _, n := range v {
		e.buf = binary.LittleEndian.AppendUint16(e.buf, uint16(n))
	}
	e.buf = append(e.buf, opTuple, opReduce)
}

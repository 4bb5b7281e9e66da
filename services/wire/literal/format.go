package literal

import (
	"fmt"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/waltos/waltos/services/wire/pickle"
)

// maxText bounds what Format returns.
const maxText = 64 << 20

// Format returns what Python's repr shows of a value. It takes the same values as
// pickle.Marshal. Like repr it gives text that Parse does not read for inf, nan,
// array and datetime.
func Format(v any) (string, error) {
	f := formatter{}
	if err := f.value(v, 0); err != nil {
		return "", fmt.Errorf("cannot format literal: %w", err)
	}
	return string(f.buf), nil
}

// FormatBytes returns the Python literal of bytes.
func FormatBytes(data []byte) string { return string(appendBytes(nil, data)) }

type formatter struct{ buf []byte }

func (f *formatter) add(text string) { f.buf = append(f.buf, text...) }

func (f *formatter) value(v any, depth int) error {
	if depth > 3*maxDepth {
		return fmt.Errorf("the value is deeper than %d", 3*maxDepth)
	}
	if len(f.buf) > maxText {
		return fmt.Errorf("the text is longer than %d bytes", maxText)
	}
	switch v := v.(type) {
	case nil:
		f.add("None")
	case bool:
		if v {
			f.add("True")
		} else {
			f.add("False")
		}
	case int, int8, int16, int32, int64, uint, uint8, uint16, uint32, uint64:
		f.add(fmt.Sprint(v))
	case *big.Int:
		f.buf = v.Append(f.buf, 10)
	case float32:
		f.add(formatFloat(float64(v)))
	case float64:
		f.add(formatFloat(v))
	case string:
		f.buf = appendText(f.buf, v)
	case []byte:
		f.buf = appendBytes(f.buf, v)
	case time.Time:
		f.datetime(v)
	case pickle.Int16s:
		f.add("array('h'")
		for i, n := range v {
			f.add([]string{", [", ", "}[min(i, 1)] + strconv.Itoa(int(n)))
		}
		f.add([]string{")", "])"}[min(len(v), 1)])
	case pickle.Tuple:
		if len(v) == 1 {
			return f.items("(", v, ",)", depth)
		}
		return f.items("(", v, ")", depth)
	case *pickle.List:
		return f.items("[", v.Items, "]", depth)
	case []any:
		return f.items("[", v, "]", depth)
	case []string:
		items := make([]any, len(v))
		for i, s := range v {
			items[i] = s
		}
		return f.items("[", items, "]", depth)
	case *pickle.Set:
		if len(v.Items) == 0 {
			f.add("set()")
			return nil
		}
		return f.items("{", v.Items, "}", depth)
	case *pickle.Dict:
		return f.dict(v, depth)
	case map[string]any:
		return f.dict(sorted(v), depth)
	case map[string]string:
		return f.dict(sorted(v), depth)
	default:
		return fmt.Errorf("a value of type %T has no Python form", v)
	}
	return nil
}

func sorted[V any](m map[string]V) *pickle.Dict {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	d := &pickle.Dict{}
	for _, k := range keys {
		d.Set(k, m[k])
	}
	return d
}

func (f *formatter) items(open string, items []any, end string, depth int) error {
	f.add(open)
	for i, item := range items {
		if i > 0 {
			f.add(", ")
		}
		if err := f.value(item, depth+1); err != nil {
			return err
		}
	}
	f.add(end)
	return nil
}

func (f *formatter) dict(d *pickle.Dict, depth int) error {
	f.add("{")
	for i, e := range d.Entries() {
		if i > 0 {
			f.add(", ")
		}
		if err := f.value(e.Key, depth+1); err != nil {
			return err
		}
		f.add(": ")
		if err := f.value(e.Value, depth+1); err != nil {
			return err
		}
	}
	f.add("}")
	return nil
}

func (f *formatter) datetime(t time.Time) {
	year, month, day := t.Date()
	fields := []int{year, int(month), day, t.Hour(), t.Minute(), t.Second(), t.Nanosecond() / 1000}
	for n := len(fields); n > 5 && fields[n-1] == 0; n-- { // repr drops them
		fields = fields[:n-1]
	}
	for i, n := range fields {
		f.add([]string{"datetime.datetime(", ", "}[min(i, 1)] + strconv.Itoa(n))
	}
	f.add(")")
}

// formatFloat writes the shortest text that reads back as v, in the notation that
// Python chooses.
func formatFloat(v float64) string {
	switch {
	case math.IsNaN(v):
		return "nan"
	case math.IsInf(v, 1):
		return "inf"
	case math.IsInf(v, -1):
		return "-inf"
	}
	text := strconv.FormatFloat(v, 'e', -1, 64)
	exponent, _ := strconv.Atoi(text[strings.IndexByte(text, 'e')+1:])
	if exponent < -4 || exponent >= 16 {
		return text
	}
	text = strconv.FormatFloat(v, 'f', -1, 64)
	if !strings.Contains(text, ".") {
		text += ".0"
	}
	return text
}

// quoteFor returns the quote that Python chooses.
func quoteFor(single, double bool) byte {
	if single && !double {
		return '"'
	}
	return '\''
}

func appendBytes(buf, data []byte) []byte {
	quote := quoteFor(slices.Contains(data, '\''), slices.Contains(data, '"'))
	buf = append(buf, 'b', quote)
	for _, c := range data {
		buf = appendASCII(buf, c, quote)
	}
	return append(buf, quote)
}

func appendASCII(buf []byte, c, quote byte) []byte {
	switch {
	case c == quote || c == '\\':
		return append(buf, '\\', c)
	case c == '\t':
		return append(buf, `\t`...)
	case c == '\n':
		return append(buf, `\n`...)
	case c == '\r':
		return append(buf, `\r`...)
	case c < ' ' || c >= 0x7f:
		return append(buf, '\\', 'x', hexDigits[c>>4], hexDigits[c&15])
	}
	return append(buf, c)
}

const hexDigits = "0123456789abcdef"

func appendText(buf []byte, s string) []byte {
	if !utf8.ValidString(s) {
		s = pickle.Text(s)
	}
	quote := quoteFor(strings.Contains(s, "'"), strings.Contains(s, `"`))
	buf = append(buf, quote)
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r < utf8.RuneSelf:
			buf = appendASCII(buf, s[0], quote)
		case r == utf8.RuneError && n == 1: // a lone surrogate, of three bytes
			n = 3
			buf = fmt.Appendf(buf, `\ud%03x`, int(s[1]&0x3f)<<6|int(s[2]&0x3f))
		case unicode.IsPrint(r):
			buf = append(buf, s[:n]...)
		case r < 0x100:
			buf = fmt.Appendf(buf, `\x%02x`, r)
		case r < 0x10000:
			buf = fmt.Appendf(buf, `\u%04x`, r)
		default:
			buf = fmt.Appendf(buf, `\U%08x`, r)
		}
		s = s[n:]
	}
	return append(buf, quote)
}

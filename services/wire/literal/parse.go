// Package literal reads and writes Python literals: the messages of the mode
// "line-repr-eval" of the API link, and the chunks of virtual consoles (client-api
// 1.3 and CN-31). Values have the same Go forms as in package pickle.
//
// Nothing is evaluated. Read are tuples, lists, dicts, sets, str, bytes, int, float,
// True, False and None as the Python language reference writes them, except triple
// quotes, prefixes other than b, adjacent strings, \N{...} and complex numbers.
package literal

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/waltos/waltos/services/wire/pickle"
)

const (
	maxDepth  = 64
	maxDigits = 4300 // of an int, as in Python
)

// Parse returns the value of text, which must hold one literal and nothing else than
// blanks around it. Its cost is bounded by the length of the text.
func Parse(text string) (any, error) {
	p := parser{text: text}
	v, err := p.value(0)
	if err == nil {
		if p.blanks(); p.pos < len(p.text) {
			err = errors.New("something follows the value")
		}
	}
	if err != nil {
		return nil, fmt.Errorf("cannot parse literal: column %d: %w", p.pos+1, err)
	}
	return v, nil
}

type parser struct {
	text string
	pos  int
}

// peek returns the next character that is not blank, or 0 at the end.
func (p *parser) peek() byte {
	p.blanks()
	if p.pos == len(p.text) {
		return 0
	}
	return p.text[p.pos]
}

func (p *parser) blanks() {
	for p.pos < len(p.text) && strings.IndexByte(" \t\r\n\f", p.text[p.pos]) >= 0 {
		p.pos++
	}
}

func (p *parser) value(depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("the value is deeper than %d", maxDepth)
	}
	switch c := p.peek(); {
	case c == 0:
		return nil, errors.New("a value is missing")
	case c == '(':
		items, comma, err := p.items(')', depth)
		if err != nil {
			return nil, err
		}
		if len(items) == 1 && !comma {
			return items[0], nil // parentheses only
		}
		return pickle.Tuple(items), nil
	case c == '[':
		items, _, err := p.items(']', depth)
		if err != nil {
			return nil, err
		}
		return &pickle.List{Items: items}, nil
	case c == '{':
		return p.braces(depth)
	case c == '\'' || c == '"':
		return p.str(false)
	case (c == 'b' || c == 'B') && p.pos+1 < len(p.text) && (p.text[p.pos+1] == '\'' || p.text[p.pos+1] == '"'):
		p.pos++
		return p.str(true)
	case c >= '0' && c <= '9' || c == '.' || c == '-' || c == '+':
		return p.number()
	}
	return p.word()
}

// items reads the values up to a closing character, and tells whether a comma
// follows the last one.
func (p *parser) items(end byte, depth int) (items []any, comma bool, err error) {
	p.pos++
	items = []any{}
	for {
		if p.peek() == end {
			p.pos++
			return items, comma, nil
		}
		if len(items) > 0 && !comma {
			return nil, false, fmt.Errorf("%q or a comma is missing", end)
		}
		v, err := p.value(depth + 1)
		if err != nil {
			return nil, false, err
		}
		items = append(items, v)
		if comma = p.peek() == ','; comma {
			p.pos++
		}
	}
}

// braces reads a dict or a set.
func (p *parser) braces(depth int) (any, error) {
	p.pos++
	dict, keys := &pickle.Dict{}, &pickle.Dict{}
	for comma := true; ; {
		if p.peek() == '}' {
			p.pos++
			break
		}
		if !comma {
			return nil, errors.New("'}' or a comma is missing")
		}
		key, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		if !hashable(key) {
			return nil, errors.New("a key is neither a str, bytes, number, bool nor None")
		}
		if p.peek() == ':' && keys.Len() == 0 {
			p.pos++
			v, err := p.value(depth + 1)
			if err != nil {
				return nil, err
			}
			dict.Set(key, v)
		} else if dict.Len() > 0 {
			return nil, errors.New("a dict has a key without value")
		} else {
			keys.Set(key, nil)
		}
		if comma = p.peek() == ','; comma {
			p.pos++
		}
	}
	if keys.Len() == 0 {
		return dict, nil
	}
	set := &pickle.Set{}
	for _, e := range keys.Entries() {
		set.Items = append(set.Items, e.Key)
	}
	return set, nil
}

func hashable(v any) bool {
	switch v.(type) {
	case nil, bool, int64, *big.Int, float64, string, []byte:
		return true
	}
	return false
}

func (p *parser) word() (any, error) {
	start := p.pos
	for p.pos < len(p.text) && wordByte(p.text[p.pos]) {
		p.pos++
	}
	switch word := p.text[start:p.pos]; word {
	case "None":
		return nil, nil
	case "True":
		return true, nil
	case "False":
		return false, nil
	case "":
		r, _ := utf8.DecodeRuneInString(p.text[start:])
		return nil, fmt.Errorf("%q begins no value", r)
	default:
		p.pos = start
		return nil, fmt.Errorf("%.40q is not a literal", word)
	}
}

func wordByte(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
}

func (p *parser) number() (any, error) {
	negative := false
	for c := p.peek(); c == '-' || c == '+'; c = p.peek() {
		negative = negative != (c == '-')
		p.pos++
	}
	start := p.pos
	for p.pos < len(p.text) {
		c := p.text[p.pos]
		exponent := (c == '-' || c == '+') && (p.text[p.pos-1]|0x20) == 'e' && p.pos > start && !strings.HasPrefix(p.text[start:], "0x")
		if !wordByte(c) && c != '.' && !exponent {
			break
		}
		p.pos++
	}
	word := p.text[start:p.pos]
	v, ok := number(word)
	if !ok {
		p.pos = start
		return nil, fmt.Errorf("%.40q is not a number", word)
	}
	if negative {
		switch n := v.(type) {
		case float64:
			return -n, nil
		case *big.Int:
			return reduce(n.Neg(n)), nil
		}
	}
	if n, ok := v.(*big.Int); ok {
		return reduce(n), nil
	}
	return v, nil
}

// number returns the *big.Int or float64 of a word without sign.
func number(word string) (any, bool) {
	if word == "" || word[0] == '_' || strings.HasSuffix(word, "_") || strings.Contains(word, "__") {
		return nil, false
	}
	lower := strings.ToLower(word)
	hex := strings.HasPrefix(lower, "0x")
	switch {
	case hex || strings.HasPrefix(lower, "0o") || strings.HasPrefix(lower, "0b"):
		if len(lower) > maxDigits {
			return nil, false
		}
		return new(big.Int).SetString(lower, 0)
	case strings.ContainsAny(lower, ".e"):
		for i := range len(lower) {
			if c := lower[i]; c == '_' && (!digit(lower, i-1) || !digit(lower, i+1)) || !strings.ContainsRune("0123456789._e+-", rune(c)) {
				return nil, false
			}
		}
		f, err := strconv.ParseFloat(strings.ReplaceAll(lower, "_", ""), 64)
		if err != nil && !math.IsInf(f, 0) { // 1e999 is inf
			return nil, false
		}
		return f, true
	}
	digits := strings.ReplaceAll(word, "_", "")
	if len(digits) > maxDigits || len(digits) > 1 && digits[0] == '0' && strings.Trim(digits, "0") != "" {
		return nil, false // 007 is not Python
	}
	for i := range len(digits) {
		if !digit(digits, i) {
			return nil, false
		}
	}
	return new(big.Int).SetString(digits, 10)
}

func digit(s string, i int) bool { return i >= 0 && i < len(s) && s[i] >= '0' && s[i] <= '9' }

func reduce(n *big.Int) any {
	if n.IsInt64() {
		return n.Int64()
	}
	return n
}

// str reads a quoted str, or the bytes after their prefix.
func (p *parser) str(bytes bool) (any, error) {
	quote := p.text[p.pos]
	if strings.HasPrefix(p.text[p.pos:], strings.Repeat(string(quote), 3)) {
		return nil, errors.New("triple quotes are not accepted")
	}
	p.pos++
	var b []byte
	for p.pos < len(p.text) {
		c := p.text[p.pos]
		p.pos++
		switch {
		case c == quote:
			if bytes {
				return append([]byte{}, b...), nil
			}
			return string(b), nil
		case c == '\\':
			var err error
			if b, err = p.escape(b, bytes); err != nil {
				return nil, err
			}
		case c == '\n':
			return nil, errors.New("a string is not closed on its line")
		case c >= utf8.RuneSelf && bytes:
			return nil, errors.New("bytes hold a character that is not ASCII")
		case c >= utf8.RuneSelf:
			_, n := utf8.DecodeRuneInString(p.text[p.pos-1:])
			if n == 1 {
				return nil, errors.New("a str is not UTF-8")
			}
			b = append(b, p.text[p.pos-1:p.pos-1+n]...)
			p.pos += n - 1
		default:
			b = append(b, c)
		}
	}
	return nil, errors.New("a string is not closed")
}

var simpleEscapes = map[byte]byte{'\\': '\\', '\'': '\'', '"': '"', 'a': 7, 'b': 8, 'f': 12, 'n': 10, 'r': 13, 't': 9, 'v': 11}

func (p *parser) escape(b []byte, bytes bool) ([]byte, error) {
	if p.pos == len(p.text) {
		return nil, errors.New("a string is not closed")
	}
	c := p.text[p.pos]
	p.pos++
	if plain, ok := simpleEscapes[c]; ok {
		return append(b, plain), nil
	}
	digits := 0
	switch {
	case c == '\n':
		return b, nil
	case c >= '0' && c <= '7':
		v := rune(c - '0')
		for range 2 {
			if p.pos < len(p.text) && p.text[p.pos] >= '0' && p.text[p.pos] <= '7' {
				v = v<<3 | rune(p.text[p.pos]-'0')
				p.pos++
			}
		}
		return appendCode(b, v, bytes), nil
	case c == 'x':
		digits = 2
	case c == 'u' && !bytes:
		digits = 4
	case c == 'U' && !bytes:
		digits = 8
	case c == 'N' && !bytes:
		return nil, errors.New(`the escape \N is not accepted`)
	default: // as Python: both characters stay, and the second is read again
		p.pos--
		return append(b, '\\'), nil
	}
	if p.pos+digits > len(p.text) {
		return nil, errors.New("an escape is cut")
	}
	v, err := strconv.ParseUint(p.text[p.pos:p.pos+digits], 16, 32)
	if err != nil || v > utf8.MaxRune {
		return nil, errors.New("an escape is not hexadecimal")
	}
	p.pos += digits
	return appendCode(b, rune(v), bytes), nil
}

// appendCode appends a code point, surrogates included, or the low byte of it.
func appendCode(b []byte, v rune, bytes bool) []byte {
	switch {
	case bytes:
		return append(b, byte(v))
	case v >= 0xd800 && v < 0xe000:
		return append(b, 0xed, 0x80|byte(v>>6&0x3f), 0x80|byte(v&0x3f))
	}
	return utf8.AppendRune(b, v)
}

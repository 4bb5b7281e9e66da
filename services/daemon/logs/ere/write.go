package ere

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// dialect is the engine an expression is written for. Both understand (?:...),
// intervals, \x escapes and sets of characters; they differ in names of places.
type dialect int

const (
	goDialect dialect = iota
	pgDialect
)

type node interface {
	write(b *strings.Builder, d dialect)
}

type (
	choice    []node
	sequence  []node
	group     struct{ node }
	character rune
	set       struct {
		ranges  []span
		negated bool
	}
	span   struct{ low, high rune }
	repeat struct {
		node
		min, max int // max -1: none
	}
	place int
	edge  struct{ goForm, pgForm string }
)

const (
	anyCharacter place = iota
	anchorStart
	anchorEnd
)

var placeForms = [...]string{anyCharacter: ".", anchorStart: "^", anchorEnd: "$"}

func isEdge(n node) bool { _, ok := n.(edge); return ok }

// repeated simplifies what GNU accepts and PostgreSQL does not: a** and the like.
func repeated(n node, min, max int) node {
	if r, ok := n.(repeat); ok {
		if min <= 1 && max == -1 && r.min <= 1 && r.max == -1 {
			return repeat{r.node, r.min * min, -1}
		}
		n = group{r}
	}
	return repeat{n, min, max}
}

func (c choice) write(b *strings.Builder, d dialect) {
	for i, branch := range c {
		if i > 0 {
			b.WriteByte('|')
		}
		branch.write(b, d)
	}
}

func (s sequence) write(b *strings.Builder, d dialect) {
	if len(s) == 0 {
		b.WriteString("(?:)") // an empty branch
	}
	for _, n := range s {
		n.write(b, d)
	}
}

func (g group) write(b *strings.Builder, d dialect) {
	b.WriteString("(?:")
	g.node.write(b, d)
	b.WriteByte(')')
}

func (c character) write(b *strings.Builder, d dialect) { writeRune(b, rune(c), d) }

// writeRune escapes all but what means itself everywhere.
func writeRune(b *strings.Builder, r rune, d dialect) {
	switch {
	case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == ' ', r == '_', r >= 0xa0:
		b.WriteRune(r)
	case r < utf8.RuneSelf && r > ' ' && r < 0x7f:
		b.WriteByte('\\')
		b.WriteRune(r)
	case d == goDialect:
		fmt.Fprintf(b, `\x{%x}`, r)
	default:
		fmt.Fprintf(b, `\u%04x`, r)
	}
}

func (s set) write(b *strings.Builder, d dialect) {
	b.WriteByte('[')
	if s.negated {
		b.WriteByte('^')
	}
	for _, r := range s.ranges {
		writeRune(b, r.low, d)
		if r.high != r.low {
			b.WriteByte('-')
			writeRune(b, r.high, d)
		}
	}
	b.WriteByte(']')
}

func (r repeat) write(b *strings.Builder, d dialect) {
	r.node.write(b, d)
	switch {
	case r.min == 0 && r.max == -1:
		b.WriteByte('*')
	case r.min == 1 && r.max == -1:
		b.WriteByte('+')
	case r.max == -1:
		fmt.Fprintf(b, "{%d,}", r.min)
	default:
		fmt.Fprintf(b, "{%d,%d}", r.min, r.max)
	}
}

func (p place) write(b *strings.Builder, d dialect) { b.WriteString(placeForms[p]) }

func (e edge) write(b *strings.Builder, d dialect) {
	if d == goDialect {
		b.WriteString(e.goForm)
	} else {
		b.WriteString(e.pgForm)
	}
}

var word = []span{{'a', 'z'}, {'A', 'Z'}, {'0', '9'}, {'_', '_'}}

// classes are those of the POSIX locale.
var classes = map[string][]span{
	"alpha":  {{'a', 'z'}, {'A', 'Z'}},
	"digit":  {{'0', '9'}},
	"alnum":  {{'a', 'z'}, {'A', 'Z'}, {'0', '9'}},
	"upper":  {{'A', 'Z'}},
	"lower":  {{'a', 'z'}},
	"space":  {{'\t', '\r'}, {' ', ' '}},
	"blank":  {{'\t', '\t'}, {' ', ' '}},
	"punct":  {{'!', '/'}, {':', '@'}, {'[', '`'}, {'{', '~'}},
	"print":  {{' ', '~'}},
	"graph":  {{'!', '~'}},
	"cntrl":  {{1, 0x1f}, {0x7f, 0x7f}},
	"xdigit": {{'0', '9'}, {'a', 'f'}, {'A', 'F'}},
}

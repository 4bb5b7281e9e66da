package ere

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

type parser struct {
	text string
	at   int
}

func (p *parser) error(reason string) error { return &Error{p.text, p.at, reason} }

// peek returns the next character, or 0 at the end: PostgreSQL's texts hold no NUL,
// and one in an expression is refused.
func (p *parser) peek() rune {
	if p.at >= len(p.text) {
		return 0
	}
	r, _ := utf8.DecodeRuneInString(p.text[p.at:])
	return r
}

func (p *parser) next() (rune, error) {
	r, size := utf8.DecodeRuneInString(p.text[p.at:])
	if r == 0 || r == utf8.RuneError && size <= 1 {
		return 0, p.error("not UTF-8 text")
	}
	p.at += size
	return r, nil
}

func (p *parser) alternatives(depth int) (node, error) {
	if depth > maxDepth {
		return nil, p.error("groups are nested too deeply")
	}
	var all choice
	for {
		branch, err := p.sequence(depth)
		if err != nil {
			return nil, err
		}
		all = append(all, branch)
		if p.peek() != '|' {
			return all, nil
		}
		p.at++
	}
}

func (p *parser) sequence(depth int) (node, error) {
	var all sequence
	for p.at < len(p.text) && p.peek() != '|' && p.peek() != ')' {
		atom, err := p.atom(depth)
		if err != nil {
			return nil, err
		}
		for {
			min, max, found, err := p.repetition()
			if err != nil {
				return nil, err
			}
			if !found {
				break
			}
			if atom == anchorStart || atom == anchorEnd || isEdge(atom) {
				return nil, p.error("an anchor cannot be repeated")
			}
			atom = repeated(atom, min, max)
		}
		all = append(all, atom)
	}
	return all, nil
}

func (p *parser) atom(depth int) (node, error) {
	start := p.at
	r, err := p.next()
	if err != nil {
		return nil, err
	}
	switch r {
	case '(':
		inner, err := p.alternatives(depth + 1)
		if err != nil {
			return nil, err
		}
		if p.peek() != ')' {
			p.at = start
			return nil, p.error("unmatched (")
		}
		p.at++
		return group{inner}, nil
	case '.':
		return anyCharacter, nil
	case '^':
		return anchorStart, nil
	case '$':
		return anchorEnd, nil
	case '[':
		return p.bracket(start)
	case '\\':
		return p.escape()
	case '*', '+', '?':
		p.at = start
		return nil, p.error("nothing to repeat")
	case '{':
		p.at = start
		if _, _, found, err := p.repetition(); err != nil {
			return nil, err
		} else if found {
			p.at = start
			return nil, p.error("nothing to repeat")
		}
		p.at++
	}
	return character(r), nil
}

// repetition reads * + ? or an interval. A { that starts no interval is a character
// of its own: lines of JSON are full of them.
func (p *parser) repetition() (min, max int, found bool, err error) {
	switch p.peek() {
	case '*':
		p.at++
		return 0, -1, true, nil
	case '+':
		p.at++
		return 1, -1, true, nil
	case '?':
		p.at++
		return 0, 1, true, nil
	case '{':
	default:
		return 0, 0, false, nil
	}
	end := strings.IndexByte(p.text[p.at:], '}')
	if end < 0 {
		return 0, 0, false, nil
	}
	body := p.text[p.at+1 : p.at+end]
	low, high, ranged := strings.Cut(body, ",")
	if !digits(low) || !digits(high) || low == "" && high == "" {
		return 0, 0, false, nil
	}
	min, ok1 := bound(low, 0)
	max, ok2 := min, true
	if ranged {
		max, ok2 = bound(high, -1)
	}
	if !ok1 || !ok2 || max >= 0 && min > max {
		return 0, 0, false, p.error("bad repetition: bounds go from 0 to 255")
	}
	p.at += end + 1
	return min, max, true, nil
}

func digits(s string) bool { return strings.Trim(s, "0123456789") == "" }

func bound(s string, absent int) (int, bool) {
	if s == "" {
		return absent, true
	}
	n, err := strconv.Atoi(s)
	return n, err == nil && n <= maxRepeat
}

// classEscapes are GNU's escapes that stand for characters.
var classEscapes = map[rune]set{
	'w': {ranges: word},
	'W': {ranges: word, negated: true},
	's': {ranges: classes["space"]},
	'S': {ranges: classes["space"], negated: true},
}

// edgeEscapes are GNU's escapes that stand for places. Go cannot tell the start of
// a word from its end without looking ahead, so both are any edge of a word.
var edgeEscapes = map[rune]edge{
	'b':  wordEdge,
	'<':  wordEdge,
	'>':  wordEdge,
	'B':  {`\B`, `(?:(?<=` + wordSet + `)(?=` + wordSet + `)|(?<!` + wordSet + `)(?!` + wordSet + `))`},
	'`':  {`^`, `^`},
	'\'': {`$`, `$`},
}

// PostgreSQL's own \y follows the locale; Go's \b is ASCII.
const wordSet = `[a-zA-Z0-9_]`

var wordEdge = edge{`\b`, `(?:(?<=` + wordSet + `)(?!` + wordSet + `)|(?<!` + wordSet + `)(?=` + wordSet + `))`}

func (p *parser) escape() (node, error) {
	if p.at >= len(p.text) {
		p.at--
		return nil, p.error("nothing follows the last \\")
	}
	r, err := p.next()
	if err != nil {
		return nil, err
	}
	if r >= '1' && r <= '9' {
		p.at -= 2
		return nil, p.error("back-references are not supported")
	}
	if s, ok := classEscapes[r]; ok {
		return s, nil
	}
	if e, ok := edgeEscapes[r]; ok {
		return e, nil
	}
	return character(r), nil
}

// bracket reads what follows [.
func (p *parser) bracket(start int) (node, error) {
	var s set
	if p.peek() == '^' {
		s.negated = true
		p.at++
	}
	for first := true; ; first = false {
		if p.at >= len(p.text) {
			p.at = start
			return nil, p.error("unmatched [")
		}
		if p.peek() == ']' && !first {
			p.at++
			return s, nil
		}
		if rest := p.text[p.at:]; strings.HasPrefix(rest, "[:") {
			name, _, ok := strings.Cut(rest[2:], ":]")
			ranges, known := classes[name]
			if !ok || !known {
				return nil, p.error("unknown character class")
			}
			s.ranges = append(s.ranges, ranges...)
			p.at += len(name) + 4
			continue
		}
		low, equivalent, err := p.element()
		if err != nil {
			return nil, err
		}
		high := low
		if rest := p.text[p.at:]; !equivalent && len(rest) > 1 && rest[0] == '-' && rest[1] != ']' {
			at := p.at
			p.at++
			if high, equivalent, err = p.element(); err != nil {
				return nil, err
			}
			if equivalent || high < low {
				p.at = at
				return nil, p.error("bad range")
			}
		}
		s.ranges = append(s.ranges, span{low, high})
	}
}

// element reads one character of a bracket expression: itself, [.c.] or [=c=].
func (p *parser) element() (r rune, equivalent bool, err error) {
	rest := p.text[p.at:]
	for _, kind := range []string{".", "="} {
		if !strings.HasPrefix(rest, "["+kind) {
			continue
		}
		// The character may be the delimiter itself: [...] is [.].] never, [...] is ".".
		_, size := utf8.DecodeRuneInString(rest[2:])
		if !strings.HasPrefix(rest[2+size:], kind+"]") || size == 0 {
			return 0, false, p.error("collating elements of several characters are not supported")
		}
		p.at += 2
		r, err = p.next()
		p.at += 2
		return r, kind == "=", err
	}
	if strings.HasPrefix(rest, "[:") {
		return 0, false, p.error("bad range")
	}
	r, err = p.next()
	return r, false, err
}

package ipxe

import (
	"errors"
	"strings"
)

// sequence is a line, cut at the right-most of its operators.
type sequence struct {
	before   string
	operator string // "&&", "||", or "": there is only after
	after    string
}

func cut(line string) sequence {
	at := max(strings.LastIndex(line, "&&"), strings.LastIndex(line, "||"))
	if at < 0 {
		return sequence{after: line}
	}
	return sequence{line[:at], line[at : at+2], line[at+2:]}
}

// line runs a line, or what is left of an operator.
func (r *run) line(text string) error {
	if len(text) > maxLine {
		return r.abort("A line has more than %d bytes.", maxLine)
	}
	text, _, _ = strings.Cut(text, "#")
	return r.sequence(text)
}

func (r *run) sequence(text string) error {
	s := cut(text)
	if s.operator != "" {
		err := r.sequence(s.before)
		if final(err) || (err == nil) != (s.operator == "&&") {
			return err
		}
	}
	return r.directive(s.after)
}

// directive runs a directive; there may be none.
func (r *run) directive(text string) error {
	words, err := split(text)
	if err != nil {
		return r.fail("cannot read %q: %v", strings.TrimSpace(text), err)
	}
	if len(words) == 0 {
		return nil
	}
	if r.directives++; r.directives > maxDirectives {
		return r.abort("More than %d directives were run.", maxDirectives)
	}
	for i, word := range words {
		if words[i] = r.expand(word); len(words[i]) > maxValue {
			return r.abort("A word has more than %d bytes.", maxValue)
		}
	}
	return r.execute(words[0], words[1:])
}

// split returns the words of a text as a POSIX shell does: quotes and backslashes join
// what spaces would part. Nothing is expanded.
func split(text string) ([]string, error) {
	var words []string
	var word strings.Builder
	var quote byte // what ends the quotes; 0: outside
	inside := false
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case quote == 0 && strings.IndexByte(" \t\r\n\v\f", c) >= 0:
			if inside {
				words = append(words, word.String())
				word.Reset()
				inside = false
			}
			continue
		case quote == 0 && (c == '\'' || c == '"'):
			quote, inside = c, true
			continue
		case quote != 0 && c == quote:
			quote = 0
			continue
		case c == '\\' && quote != '\'':
			if i+1 == len(text) {
				return nil, errors.New("nothing follows the backslash")
			}
			// Within double quotes it only escapes a quote and itself.
			if next := text[i+1]; quote == 0 || next == '"' || next == '\\' {
				i++
				c = next
			}
		}
		word.WriteByte(c)
		inside = true
	}
	if quote != 0 {
		return nil, errors.New("a quote is not closed")
	}
	if inside {
		words = append(words, word.String())
	}
	return words, nil
}

// expand replaces ${NAME} by the value of a variable; what it holds is not expanded again.
func (r *run) expand(word string) string {
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(word, "${")
		if !found {
			break
		}
		name, after, closed := strings.Cut(rest, "}")
		if !closed {
			break
		}
		out.WriteString(before)
		out.WriteString(r.value(name))
		if out.Len() > maxValue {
			return out.String()
		}
		word = after
	}
	out.WriteString(word)
	return out.String()
}

// value returns that of a variable, or "". A node has one card, whose variables have
// the name of the card before them in some scripts; a type may follow.
func (r *run) value(name string) string {
	for _, card := range []string{"netX/", "net0/"} {
		name = strings.TrimPrefix(name, card)
	}
	if value, found := r.variables[name]; found {
		return value
	}
	name, kind, _ := strings.Cut(name, ":")
	if kind == "hexhyp" {
		return strings.ReplaceAll(r.variables[name], ":", "-")
	}
	return r.variables[name]
}

// Package ere reads POSIX extended regular expressions (IEEE 1003.1, 9.4) with the
// extensions of the GNU library, and gives two forms of the same expression: one
// for Go's engine, which filters lines in real time, and one for PostgreSQL, which
// filters a history. Being made from one syntax tree they accept the same
// expressions and select the same lines (server-state 4.5).
//
// Matching is unanchored and case sensitive, and only tells whether a line matches,
// so that leftmost-longest does not matter. Where GNU and PostgreSQL differ, GNU is
// followed: \w \W \s \S \b \B \` \' work, "a**" is "a*", "a{,2}" is "a{0,2}"; but \< and
// \> match at both edges of a word, as \b.
// Any other escaped letter is the letter itself, as in both. Classes such as
// [[:alpha:]] and the class escapes hold ASCII characters only, and ranges are in
// the order of Unicode.
//
// Refused: back-references (neither engine can bound their time), collating
// elements of several characters, and the sizes of the constants below.
package ere

import (
	"fmt"
	"regexp"
	"strings"
)

const (
	maxLength = 4096 // bytes of an expression
	maxDepth  = 100  // nested groups
	maxRepeat = 255  // RE_DUP_MAX of POSIX, and PostgreSQL's limit
)

// Expr is a compiled expression.
type Expr struct {
	matcher  *regexp.Regexp
	postgres string
}

// Error is a refused expression.
type Error struct {
	Expr   string
	At     int // byte offset
	Reason string
}

func (e *Error) Error() string {
	return fmt.Sprintf("invalid regular expression %q: %s at character %d", e.Expr, e.Reason, e.At+1)
}

// Parse compiles an expression.
func Parse(expr string) (*Expr, error) {
	p := &parser{text: expr}
	if len(expr) > maxLength {
		return nil, &Error{expr[:32] + "...", maxLength, "longer than 4096 bytes"}
	}
	tree, err := p.alternatives(0)
	if err != nil {
		return nil, err
	}
	if p.at < len(expr) {
		return nil, p.error("unmatched )")
	}
	var goForm, pgForm strings.Builder
	goForm.WriteString("(?s)")
	pgForm.WriteString("***:")
	tree.write(&goForm, goDialect)
	tree.write(&pgForm, pgDialect)
	matcher, err := regexp.Compile(goForm.String())
	if err != nil {
		// Go bounds the product of nested repetitions.
		return nil, &Error{expr, 0, "too many repetitions"}
	}
	return &Expr{matcher, pgForm.String()}, nil
}

// Match tells whether some part of line matches.
func (e *Expr) Match(line string) bool { return e.matcher.MatchString(line) }

// MatchBytes is Match.
func (e *Expr) MatchBytes(line []byte) bool { return e.matcher.Match(line) }

// Postgres returns the expression for PostgreSQL's operator ~. It selects the lines
// that Match accepts.
func (e *Expr) Postgres() string { return e.postgres }

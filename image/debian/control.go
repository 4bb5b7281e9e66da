// Package debian reads what a Debian archive publishes: control stanzas (deb822(5)),
// versions, signed InRelease files, Packages indexes; and resolves dependencies into
// a closed set.
//
// The subset is what a builder needs that never runs maintainer scripts: Depends,
// Pre-Depends, Provides, Conflicts and Breaks of one architecture. Recommends and
// Suggests are not followed. Refused are unsigned or outdated Release files, keys that
// are not pinned, and hashes other than SHA-256.
package debian

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Stanza is one paragraph of fields. Names are kept as written; Get ignores case.
type Stanza map[string]string

// Get returns a field, "" when it is absent.
func (s Stanza) Get(name string) string {
	if v, ok := s[name]; ok {
		return v
	}
	for k, v := range s {
		if strings.EqualFold(k, name) {
			return v
		}
	}
	return ""
}

// maxLine bounds a line of a control file. The longest of Debian 13 are the
// dependencies of metapackages, about 60 kB.
const maxLine = 1 << 20

// StanzaReader reads the stanzas of a control file.
type StanzaReader struct {
	lines *bufio.Scanner
	line  int
	keep  map[string]bool
}

// NewStanzaReader reads from r. When fields are named, others are dropped.
func NewStanzaReader(r io.Reader, fields ...string) *StanzaReader {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), maxLine)
	s := &StanzaReader{lines: lines}
	for _, f := range fields {
		if s.keep == nil {
			s.keep = map[string]bool{}
		}
		s.keep[f] = true
	}
	return s
}

// Next returns the next stanza, io.EOF after the last. Continuation lines are joined
// by newlines without their leading white space.
func (s *StanzaReader) Next() (Stanza, error) {
	stanza, last, kept := Stanza{}, "", false
	for s.lines.Scan() {
		s.line++
		line := s.lines.Text()
		if strings.TrimSpace(line) == "" {
			if last == "" {
				continue
			}
			return stanza, nil
		}
		if line[0] == '#' {
			continue
		}
		if line[0] == ' ' || line[0] == '\t' {
			if last == "" {
				return nil, fmt.Errorf("line %d: continues no field", s.line)
			}
			if kept {
				stanza[last] += "\n" + strings.TrimSpace(line)
			}
			continue
		}
		name, value, found := strings.Cut(line, ":")
		if !found || name == "" || strings.ContainsAny(name, " \t") {
			return nil, fmt.Errorf("line %d: %.60q is not a field", s.line, line)
		}
		if last = name; s.keep == nil || s.keep[name] {
			if _, twice := stanza[name]; twice {
				return nil, fmt.Errorf("line %d: field %s is set twice", s.line, name)
			}
			stanza[name], kept = strings.TrimSpace(value), true
		} else {
			kept = false
		}
	}
	if err := s.lines.Err(); err != nil {
		if errors.Is(err, bufio.ErrTooLong) {
			return nil, fmt.Errorf("line %d: longer than %d bytes", s.line+1, maxLine)
		}
		return nil, err
	}
	if last == "" {
		return nil, io.EOF
	}
	return stanza, nil
}

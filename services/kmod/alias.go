package kmod

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// Match returns, for each of the given names (modalias texts such as
// "pci:v00001AF4d00001041…" or aliases such as "fs-ext4"), the modules whose alias
// patterns match it, in the order of modules.alias.
//
// The file (27,000 patterns on a general kernel) is read through at each call and
// never held: all names of a cold plug are given in one call.
func (c *Catalog) Match(names []string) (map[string][]string, error) {
	data, err := fs.ReadFile(c.fsys, "modules.alias")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read module index: %w", err)
	}
	return matchAliases(data, names), nil
}

// keyLength is how many literal bytes of a pattern select the names to try: with 200
// names and 27,000 patterns, comparing all with all would take a second of the boot.
const keyLength = 3

// keyOf returns what a pattern and every name that it matches have in common; open
// tells that the pattern has a wildcard before that.
func keyOf(pattern []byte) (key [keyLength]byte, open bool) {
	if len(pattern) < keyLength {
		return key, true
	}
	for i := range key {
		switch b := pattern[i]; b {
		case '*', '?', '[':
			return key, true
		case '-':
			key[i] = '_'
		default:
			key[i] = b
		}
	}
	return key, false
}

// matchAliases reads "alias PATTERN MODULE" lines.
func matchAliases(data []byte, names []string) map[string][]string {
	given := map[string][]string{} // by normalised name
	byKey := map[[keyLength]byte][]string{}
	var distinct []string
	for _, name := range names {
		n := underscored(name)
		if len(given[n]) == 0 {
			distinct = append(distinct, n)
			var key [keyLength]byte
			copy(key[:], n)
			byKey[key] = append(byKey[key], n)
		}
		if !slices.Contains(given[n], name) {
			given[n] = append(given[n], name)
		}
	}
	found := map[string][]string{}
	for line := range bytes.Lines(data) {
		rest, ok := bytes.CutPrefix(line, []byte("alias "))
		if !ok {
			continue
		}
		candidates := distinct
		if key, open := keyOf(rest); !open {
			candidates = byKey[key]
		}
		if len(candidates) == 0 {
			continue
		}
		// A pattern may hold spaces (DMI names), a module name never does.
		rest = bytes.TrimRight(rest, "\r\n")
		i := bytes.LastIndexByte(rest, ' ')
		if i <= 0 {
			continue
		}
		pattern := rest[:i]
		if bytes.IndexByte(pattern, '-') >= 0 {
			pattern = []byte(underscored(string(pattern)))
		}
		literal := pattern
		if j := bytes.IndexAny(pattern, "*?["); j >= 0 {
			literal = pattern[:j]
		}
		for _, name := range candidates {
			// Most differ early, and comparing bytes is far faster than matching.
			if len(name) < len(literal) || name[:len(literal)] != string(literal) || !glob(string(pattern), name) {
				continue
			}
			module := Normalize(string(rest[i+1:]))
			for _, original := range given[name] {
				if !slices.Contains(found[original], module) {
					found[original] = append(found[original], module)
				}
			}
		}
	}
	return found
}

// underscored replaces dashes by underscores outside of brackets, as depmod does.
func underscored(alias string) string {
	if !strings.Contains(alias, "-") {
		return alias
	}
	out, inside := []byte(alias), false
	for i, b := range out {
		switch {
		case b == '[':
			inside = true
		case b == ']':
			inside = false
		case b == '-' && !inside:
			out[i] = '_'
		}
	}
	return string(out)
}

// glob is fnmatch(3) without flags for the patterns of modules.alias: *, ?, [a-z],
// [!a-z]. It does not recurse: a star is retried from its last match, so that time is
// bounded by the product of the lengths.
func glob(pattern, name string) bool {
	p, n := 0, 0
	star, mark := -1, 0
	for n < len(name) {
		if p < len(pattern) {
			if pattern[p] == '*' {
				star, mark = p, n
				p++
				continue
			}
			if width, ok := globByte(pattern[p:], name[n]); ok {
				p += width
				n++
				continue
			}
		}
		if star < 0 {
			return false
		}
		mark++
		p, n = star+1, mark
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// globByte matches one byte against the first element of a pattern and returns the
// length of that element.
func globByte(pattern string, b byte) (width int, ok bool) {
	switch pattern[0] {
	case '?':
		return 1, true
	case '[':
		end := strings.IndexByte(pattern[1:], ']')
		if end < 1 {
			return 1, b == '['
		}
		set := pattern[1 : 1+end]
		negated := set[0] == '!' || set[0] == '^'
		if negated {
			set = set[1:]
		}
		inside := false
		for i := 0; i < len(set); i++ {
			if i+2 < len(set) && set[i+1] == '-' {
				inside = inside || set[i] <= b && b <= set[i+2]
				i += 2
				continue
			}
			inside = inside || set[i] == b
		}
		return end + 2, inside != negated
	}
	return 1, pattern[0] == b
}

package kmod

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
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
	f, err := c.fsys.Open("modules.alias")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read module index: %w", err)
	}
	defer f.Close()
	found, err := matchAliases(f, names)
	if err != nil {
		return nil, fmt.Errorf("cannot read module index modules.alias: %w", err)
	}
	return found, nil
}

// matchAliases reads "alias PATTERN MODULE" lines.
func matchAliases(r io.Reader, names []string) (map[string][]string, error) {
	// Names by their first bytes keep the comparisons of 27,000 patterns with 200 names
	// few.
	byKey := map[string][]string{}
	normalised := map[string][]string{}
	var distinct []string
	for _, name := range names {
		n := underscored(name)
		if len(normalised[n]) == 0 {
			distinct = append(distinct, n)
			byKey[n[:min(len(n), keyLength)]] = append(byKey[n[:min(len(n), keyLength)]], n)
		}
		if !slices.Contains(normalised[n], name) {
			normalised[n] = append(normalised[n], name)
		}
	}
	found := map[string][]string{}
	scanner := bufio.NewScanner(r)
	scanner.Buffer(make([]byte, 4096), maxLine)
	for scanner.Scan() {
		rest, ok := bytes.CutPrefix(scanner.Bytes(), []byte("alias "))
		if !ok {
			continue
		}
		// A pattern may hold spaces (DMI names), a module name never does.
		i := bytes.LastIndexByte(rest, ' ')
		if i <= 0 {
			continue
		}
		candidates := distinct
		if k, ok := key(rest[:i]); ok {
			candidates = byKey[k]
		}
		if len(candidates) == 0 {
			continue
		}
		pattern := underscored(string(rest[:i]))
		for _, name := range candidates {
			if !glob(pattern, name) {
				continue
			}
			module := Normalize(string(rest[i+1:]))
			for _, given := range normalised[name] {
				if !slices.Contains(found[given], module) {
					found[given] = append(found[given], module)
				}
			}
		}
	}
	return found, scanner.Err()
}

// keyLength is how many literal bytes of a pattern select the names to try.
const keyLength = 3

// key returns what a pattern and every name that it matches have in common, or false
// for a pattern that is open before that.
func key(pattern []byte) (string, bool) {
	if len(pattern) < keyLength || bytes.ContainsAny(pattern[:keyLength], "*?[") {
		return "", false
	}
	return underscored(string(pattern[:keyLength])), true
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

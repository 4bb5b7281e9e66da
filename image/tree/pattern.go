package tree

import (
	"fmt"
	"path"
	"strings"
)

// Patterns selects paths: each is matched by path.Match against the path and
// against every folder above it, so that a pattern naming a folder selects all
// that it holds.
type Patterns struct {
	byDepth map[int][]string
}

// NewPatterns checks the syntax of patterns, which are absolute.
func NewPatterns(list []string) (*Patterns, error) {
	p := &Patterns{byDepth: map[int][]string{}}
	for _, pattern := range list {
		if _, err := path.Match(pattern, ""); err != nil || !path.IsAbs(pattern) {
			return nil, fmt.Errorf("pattern %q is not an absolute path.Match pattern", pattern)
		}
		depth := strings.Count(pattern, "/")
		p.byDepth[depth] = append(p.byDepth[depth], pattern)
	}
	return p, nil
}

// Match reports whether an absolute path is selected.
func (p *Patterns) Match(name string) bool {
	depth := 0
	for i := 1; i <= len(name); i++ {
		if i < len(name) && name[i] != '/' {
			continue
		}
		depth++
		for _, pattern := range p.byDepth[depth] {
			if ok, _ := path.Match(pattern, name[:i]); ok {
				return true
			}
		}
	}
	return false
}

package debian

import (
	"fmt"
	"strings"
)

// Relation is one alternative of a dependency, as "libc6 (>= 2.38)".
type Relation struct {
	Name     string
	Operator string // "", "<<", "<=", "=", ">=", ">>"
	Version  Version
}

func (r Relation) String() string {
	if r.Operator == "" {
		return r.Name
	}
	return fmt.Sprintf("%s (%s %s)", r.Name, r.Operator, r.Version)
}

// Allows says whether a version satisfies the relation.
func (r Relation) Allows(v Version) bool {
	c := v.Compare(r.Version)
	switch r.Operator {
	case "<<":
		return c < 0
	case "<=":
		return c <= 0
	case "=":
		return c == 0
	case ">=":
		return c >= 0
	case ">>":
		return c > 0
	default:
		return true
	}
}

// Dependency is a list of alternatives, any of which suffices.
type Dependency []Relation

func (d Dependency) String() string {
	parts := make([]string, len(d))
	for i, r := range d {
		parts[i] = r.String()
	}
	return strings.Join(parts, " | ")
}

// ParseRelations reads a relationship field (Debian policy §7.1). Architecture
// qualifiers (":any") are dropped: one architecture is resolved.
func ParseRelations(field string) ([]Dependency, error) {
	var all []Dependency
	for group := range strings.SplitSeq(field, ",") {
		if strings.TrimSpace(group) == "" {
			continue
		}
		var d Dependency
		for text := range strings.SplitSeq(group, "|") {
			r, err := parseRelation(text)
			if err != nil {
				return nil, err
			}
			d = append(d, r)
		}
		all = append(all, d)
	}
	return all, nil
}

func parseRelation(text string) (Relation, error) {
	name, rest, versioned := strings.Cut(text, "(")
	name, _, _ = strings.Cut(strings.TrimSpace(name), ":")
	r := Relation{Name: name}
	if !validName(name) {
		return r, fmt.Errorf("%.80q names no package", text)
	}
	if !versioned {
		return r, nil
	}
	inner, tail, closed := strings.Cut(rest, ")")
	if !closed || strings.TrimSpace(tail) != "" {
		return r, fmt.Errorf("%.80q: version not closed", text)
	}
	inner = strings.TrimSpace(inner)
	n := 0
	for n < len(inner) && strings.IndexByte("<>=", inner[n]) >= 0 {
		n++
	}
	r.Operator, r.Version = inner[:n], Version(strings.TrimSpace(inner[n:]))
	switch r.Operator {
	case "<<", "<=", "=", ">=", ">>":
	default:
		return r, fmt.Errorf("%.80q: operator %q is not known", text, r.Operator)
	}
	if err := r.Version.Check(); err != nil {
		return r, fmt.Errorf("%.80q: %w", text, err)
	}
	return r, nil
}

// validName checks a package name (Debian policy §5.6.1; capitals are met in virtual
// names).
func validName(name string) bool {
	if name == "" || len(name) > 200 {
		return false
	}
	for i := range len(name) {
		c := name[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || digit(c)
		if !letter && (i == 0 || strings.IndexByte("+-._", c) < 0) {
			return false
		}
	}
	return true
}

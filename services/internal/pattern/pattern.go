// Package pattern delays regular expressions of package regexp until their first use. All
// services are one program, and each of its processes would keep those of all others.
package pattern

import (
	"regexp"
	"sync"
)

// Lazy returns a function that compiles an expression once, and panics if it is none.
func Lazy(expression string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expression) })
}

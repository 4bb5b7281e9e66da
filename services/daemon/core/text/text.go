// Package text writes what clients read: sentences, paragraphs and tables in the exact
// form of walt 10.0 (client-api §2.2, §2.3, §2.10.6), and the messages of its catalogue
// (§2.8). It formats only: who reads a text, and when, is the caller's business.
package text

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/waltos/waltos/services/internal/pattern"
)

// Noun names what the items of a sentence are.
type Noun struct {
	None string // no item: "No nodes"
	One  string // one item, before its name: "Node"
	Many string // several items: "Nodes"
}

var (
	// Nodes is the noun of most sentences.
	Nodes = Noun{"No nodes", "Node", "Nodes"}
	// Devices is used where any device may be named.
	Devices = Noun{"No devices", "Device", "Devices"}
)

// variants is a word followed by its plural, as "is(are)". The word may be empty, but
// only right after a word boundary: a parenthesis after a blank is left alone.
var variants = pattern.Lazy(`\b(\w*)\(([^)]*)\)`)

// place stands for the names of the items while the sentence is capitalised; it cannot
// occur in a name.
const place = "\x00"

// Sentence builds a sentence about nodes. See [About].
func Sentence(template string, nodes []string) string {
	return About(template, nodes, Nodes, "and")
}

// About puts items in the place of the %s of template (§2.2): it chooses the singular or
// the plural of each "word(plural)", names up to five items (joined by commas and word)
// and counts more, and lower-cases the whole sentence but its first character and the
// names of the items.
func About(template string, items []string, noun Noun, word string) string {
	chosen := "$2"
	if len(items) == 1 {
		chosen = "$1"
	}
	sentence := variants().ReplaceAllString(template, chosen)
	names := slices.Sorted(slices.Values(items))
	var designation string
	switch {
	case len(names) == 0:
		designation = noun.None
	case len(names) == 1:
		designation = noun.One + " " + place
	case len(names) <= 5:
		designation = noun.Many + " " + place
	default:
		designation = fmt.Sprintf("%d %s", len(names), noun.Many)
	}
	sentence = capitalize(strings.Replace(sentence, "%s", designation, 1))
	return strings.Replace(sentence, place, enumerate(names, word), 1)
}

// enumerate joins names as "a, b and c".
func enumerate(names []string, word string) string {
	last := len(names) - 1
	if last <= 0 {
		return strings.Join(names, "")
	}
	return strings.Join(names[:last], ", ") + " " + word + " " + names[last]
}

// capitalize is str.capitalize of Python: the first character in upper case, all others
// in lower case.
func capitalize(s string) string {
	first, size := utf8.DecodeRuneInString(s)
	if size == 0 {
		return s
	}
	return string(unicode.ToTitle(first)) + strings.ToLower(s[size:])
}

// Decapitalize makes the first character of a text lower case.
func Decapitalize(s string) string {
	first, size := utf8.DecodeRuneInString(s)
	return string(unicode.ToLower(first)) + s[size:]
}

// Paragraph is a titled block (§2.3); the footnote may be empty.
func Paragraph(title, content, footnote string) string {
	p := "\n\x1b[1m" + title + "\n\x1b[0m\n" + content + "\n\n"
	if footnote != "" {
		p += footnote + "\n\n"
	}
	return p
}

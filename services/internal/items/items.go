// Package items splits the values of settings that are lists: items separated by commas,
// each with options in brackets, which have commas too.
package items

// Split splits a text at the commas outside of brackets.
func Split(text string) []string {
	var list []string
	inside, from := false, 0
	for i, c := range text {
		switch {
		case c == '[':
			inside = true
		case c == ']':
			inside = false
		case c == ',' && !inside:
			list = append(list, text[from:i])
			from = i + 1
		}
	}
	return append(list, text[from:])
}

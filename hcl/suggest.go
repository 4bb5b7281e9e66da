package hcl

import (
	"fmt"

	"github.com/agext/levenshtein"
)

// nearest returns the name of the list that is within two edits of the given one,
// or "".
func nearest(name string, names []string) string {
	best, bestDistance := "", 3
	for _, candidate := range names {
		if d := levenshtein.Distance(name, candidate, nil); d < bestDistance {
			best, bestDistance = candidate, d
		}
	}
	return best
}

// didYouMean ends a sentence about an unknown name with the known one that is near, if any.
func didYouMean(name string, names []string) string {
	if near := nearest(name, names); near != "" {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	return ""
}

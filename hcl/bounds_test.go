package hcl

import (
	"strings"
	"testing"
)

// TestDeepFilesAreRefused: no file is nested so deeply, or has so many mistakes, that it takes
// the program down or keeps it busy.
func TestDeepFilesAreRefused(t *testing.T) {
	const size = 256 << 10
	for _, test := range []struct{ first, again, last string }{
		{"x=", "[", ""}, {"x=", "(", ""}, {"x=", "{", ""}, {"x=", "!", "1"}, {"x=", "-", "1"}, {"x=", "a?", "a"},
		{"x=", "${", ""}, {"x=", `"${`, ""}, {"x=", "%{", ""}, {"x=", "f(", ""}, {"x=", "[for x in ", ""},
		{"", "a {\n", ""}, {"x=", "1+", "1"}, {"x=a", "[b]", ""}, {"x=a", "[*]", ""}, {"x=a", ".b", ""}, {"x=", "@", ""}, {"", "}", ""}, {"", "a\n", ""},
		{"", "\x00", ""}, {"", "\xff", ""}, {"x=<<E\n", "${<<E\n", ""}, {`x="`, "%{if a}", ""},
	} {
		src := test.first + strings.Repeat(test.again, (size-len(test.first)-len(test.last))/len(test.again)) + test.last
		_, err := ParseUnits([]byte(src), "u.hcl")
		switch {
		case err == nil:
			t.Errorf("%q, again and again, is accepted", test.again)
		case len(err.Error()) > 64<<10:
			t.Errorf("%q, again and again: an error of %d bytes", test.again, len(err.Error()))
		}
	}
	// As many mistakes as the bounds let through.
	if _, err := ParseUnits([]byte(strings.Repeat("a\n", maxLines)), "u.hcl"); err == nil || !strings.Contains(err.Error(), "9990 more errors are not shown") {
		t.Error(err)
	}
	if _, err := ParseUnits([]byte("x = "+strings.Repeat("[", 1000)), "u.hcl"); err == nil || err.Error() != "cannot read u.hcl: line 1: more than 64 brackets and quotes are within each other" {
		t.Error(err)
	}
}

package ere

import (
	"os/exec"
	"strings"
	"testing"
)

// cases are expressions with lines that match and lines that do not.
var cases = []struct {
	expr    string
	yes, no []string
}{
	{"", []string{"", "x"}, nil},
	{"abc", []string{"abc", "xabcx"}, []string{"", "ab"}},
	{"^abc$", []string{"abc"}, []string{"xabc", "abcx"}},
	{"a.c", []string{"abc", "aéc"}, []string{"ac"}},
	{"a|b", []string{"xa", "b"}, []string{"c"}},
	{"(ab|cd)+$", []string{"abcd"}, []string{"abc d"}},
	{"(a|)b", []string{"b", "ab"}, []string{"a"}},
	{"a()b", []string{"ab"}, []string{"a"}},
	{"^a{2,3}$", []string{"aa", "aaa"}, []string{"a", "aaaa"}},
	{"^a{2}$", []string{"aa"}, []string{"a", "aaa"}},
	{"^a{2,}$", []string{"aa", "aaaaa"}, []string{"a"}},
	{"^a{,2}$", []string{"", "a", "aa"}, []string{"aaa"}},
	{"^a**$", []string{"", "aaa"}, []string{"b"}},
	{"^a+*$", []string{"", "aaa"}, []string{"b"}},
	{"^(a{2}){2}$", []string{"aaaa"}, []string{"aaa"}},
	{"[[:digit:]]+ms", []string{"12ms"}, []string{"ms"}},
	{"^[^a-c]$", []string{"d", "é"}, []string{"a", "b", ""}},
	{"^[]a]$", []string{"]", "a"}, []string{"b"}},
	{"^[a-]$", []string{"-", "a"}, []string{"b"}},
	{`^[\w]$`, []string{`\`, "w"}, []string{"a"}},
	{"^[[.-.]x]$", []string{"-", "x"}, []string{"a"}},
	{"^[[=a=]]$", []string{"a"}, []string{"b"}},
	{`\.`, []string{"a.b"}, []string{"ab"}},
	{`^\w+$`, []string{"a_1"}, []string{"a-1"}},
	{`\bfoo\b`, []string{"a foo b", "foo"}, []string{"afoo", "foob"}},
	{`\<foo\>`, []string{"a foo b"}, []string{"afoo", "foob"}},
	{`o\Bo`, []string{"foo"}, []string{"o o"}},
	{"^\\s\\S$", []string{" a", "\ta"}, []string{"aa"}},
	{`\d`, []string{"d"}, []string{"1"}},
	{`{"a": [0-9]`, []string{`{"a": 1}`}, []string{`"a"`}},
	{"x{a}", []string{"x{a}"}, []string{"xa"}},
	{"a^b", nil, []string{"a^b", "ab"}},
	{"/_ -;~#&\"'<>@!%=,:`", []string{"/_ -;~#&\"'<>@!%=,:`"}, []string{"/"}},
	{"\t[\x01-\x1f]", []string{"\t\t"}, []string{"t"}},
}

func TestMatch(t *testing.T) {
	for _, c := range cases {
		e, err := Parse(c.expr)
		if err != nil {
			t.Errorf("%q: %v", c.expr, err)
			continue
		}
		for _, line := range c.yes {
			if !e.Match(line) {
				t.Errorf("%q does not match %q", c.expr, line)
			}
		}
		for _, line := range c.no {
			if e.Match(line) {
				t.Errorf("%q matches %q", c.expr, line)
			}
		}
	}
}

// TestGNU compares with the engine upstream uses, through grep.
func TestGNU(t *testing.T) {
	grep, err := exec.LookPath("grep")
	if err != nil {
		t.Skip("no grep on this machine")
	}
	for _, c := range cases {
		for want, lines := range map[bool][]string{true: c.yes, false: c.no} {
			for _, line := range lines {
				cmd := exec.Command(grep, "-Eq", "-e", c.expr)
				cmd.Stdin = strings.NewReader(line + "\n")
				cmd.Env = []string{"LC_ALL=C.UTF-8"}
				err := cmd.Run()
				if exit, ok := err.(*exec.ExitError); err != nil && (!ok || exit.ExitCode() != 1) {
					t.Fatalf("cannot run grep -E %q: %v", c.expr, err)
				}
				if (err == nil) != want {
					t.Errorf("grep -E %q on %q: matches %v", c.expr, line, err == nil)
				}
			}
		}
	}
}

func TestRefused(t *testing.T) {
	for expr, reason := range map[string]string{
		"(a":                     "unmatched (",
		"a)":                     "unmatched )",
		"[a":                     "unmatched [",
		"[]":                     "unmatched [",
		"[[:foo:]]":              "unknown character class",
		"[b-a]":                  "bad range",
		"[[.space.]]":            "several characters",
		"*a":                     "nothing to repeat",
		"a|+":                    "nothing to repeat",
		"{2}":                    "nothing to repeat",
		"(?i)x":                  "nothing to repeat",
		"a{3,2}":                 "bad repetition",
		"a{256}":                 "bad repetition",
		`a\`:                     "nothing follows",
		`(a)\1`:                  "back-references",
		"^*":                     "anchor",
		"\xff":                   "UTF-8",
		"a\x00":                  "UTF-8",
		"((a{200}){200}){200}":   "too many repetitions",
		strings.Repeat("(", 200): "too deeply",
		strings.Repeat("a", 5e3): "longer",
	} {
		_, err := Parse(expr)
		if err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%.20q: error %v, want %q", expr, err, reason)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, c := range cases {
		f.Add(c.expr, "a line of text")
	}
	f.Fuzz(func(t *testing.T, expr, line string) {
		e, err := Parse(expr)
		if err != nil {
			if len(err.Error()) > 40000 {
				t.Errorf("error of %d bytes", len(err.Error()))
			}
			return
		}
		e.Match(line)
		if !strings.HasPrefix(e.Postgres(), "***:") {
			t.Errorf("%q: PostgreSQL's form %q", expr, e.Postgres())
		}
	})
}

package client

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
)

// step is one thing that happens in a session.
type step struct {
	line    int    // in the file
	comment string // lines before it
	user    string
	words   []string // the command line, or what else happens
	command bool
	input   string
	out     string
	err     string
	code    int
	later   bool
}

var prompt = regexp.MustCompile(`^([a-z]+)\$ (.*)$`)

// readTranscript parses a session.
func readTranscript(file string) ([]step, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var steps []step
	comment := ""
	for i, line := range strings.Split(strings.TrimSuffix(string(text), "\n"), "\n") {
		last := len(steps) - 1
		fail := func(why string) error { return fmt.Errorf("%s:%d: %s: %q", file, i+1, why, line) }
		if match := prompt.FindStringSubmatch(line); match != nil {
			steps = append(steps, step{line: i + 1, comment: comment, user: match[1], words: words(match[2]), command: true})
			comment = ""
			continue
		}
		if what, ok := strings.CutPrefix(line, "* "); ok {
			steps = append(steps, step{line: i + 1, comment: comment, words: words(what)})
			comment = ""
			continue
		}
		if strings.HasPrefix(line, "# ") || line == "#" {
			comment += line + "\n"
			continue
		}
		if last < 0 || !steps[last].command || comment != "" {
			return nil, fail("belongs to no command")
		}
		s := &steps[last]
		if what, ok := strings.CutPrefix(line, "< "); ok {
			s.input += what + "\n"
		} else if what, ok := strings.CutPrefix(line, "! "); ok {
			s.err += what + "\n"
		} else if line == "!" {
			s.err += "\n"
		} else if line == "? later" {
			s.later = true
		} else if what, ok := strings.CutPrefix(line, "? "); ok {
			if s.code, err = strconv.Atoi(what); err != nil {
				return nil, fail("no exit code")
			}
		} else {
			s.out += line + "\n"
		}
	}
	return steps, nil
}

// words splits a command line at blanks; what is between apostrophes is one word.
func words(line string) []string {
	var list []string
	for i, part := range strings.Split(line, "'") {
		if i%2 == 1 {
			list = append(list, part)
			continue
		}
		list = append(list, strings.Fields(part)...)
	}
	return list
}

// show writes what was printed as it stands in a session.
func show(text string) string {
	if text == "" {
		return ""
	}
	text = strings.NewReplacer("\x1b", "␛", "\r", "␍").Replace(text)
	if whole, ok := strings.CutSuffix(text, "\n"); ok {
		text = whole
	} else {
		text += "¬"
	}
	var b strings.Builder
	for line := range strings.SplitSeq(text, "\n") {
		rest := strings.TrimRight(line, " ")
		b.WriteString(rest + strings.Repeat("·", len(line)-len(rest)) + "\n")
	}
	return b.String()
}

// marked writes a mark before each line.
func marked(mark, text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(strings.TrimRight(mark+" "+line, " \n") + "\n")
	}
	return b.String()
}

// source writes a step as it stands in a session.
func (s *step) source() string {
	var line []string
	for _, word := range s.words {
		if word == "" || strings.ContainsAny(word, " (|{[") {
			word = "'" + word + "'"
		}
		line = append(line, word)
	}
	if !s.command {
		return s.comment + "* " + strings.Join(line, " ") + "\n"
	}
	text := s.comment + s.user + "$ " + strings.Join(line, " ") + "\n" + marked("<", s.input) + s.out + marked("!", s.err)
	switch {
	case s.later:
		text += "? later\n"
	case s.code != 0:
		text += fmt.Sprintf("? %d\n", s.code)
	}
	return text
}

var placeholders = strings.NewReplacer(
	"…", `.*`,
	`\{date\}`, `\d{4}-\d\d-\d\d \d\d:\d\d:\d\d`,
	`\{micros\}`, `\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{6})?`,
	`\{clock\}`, `\d\d:\d\d:\d\d\.\d{6}`,
)

// matches tells whether a printed text, as show writes it, is as expected.
func matches(expected, printed string) bool {
	if expected == printed {
		return true
	}
	var pattern strings.Builder
	for line := range strings.Lines(expected) {
		if line == "…\n" {
			pattern.WriteString(`(?s:.*)`)
			continue
		}
		pattern.WriteString(placeholders.Replace(regexp.QuoteMeta(line)))
	}
	return regexp.MustCompile(`^` + pattern.String() + `$`).MatchString(printed)
}

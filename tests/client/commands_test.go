package client

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write what commands print into testdata")

// rows are the subcommands of the client, with what the tests did with each.
type rows struct {
	names []string
	state map[string]string
}

// slow is what is worth a word.
const slow = 2 * time.Second

const covered, later = "covered", "later"

// readRows asks the client itself for its subcommands: the 54 of client-api 6.1.
func readRows(t *testing.T, p *platform) *rows {
	t.Helper()
	all := &rows{state: map[string]string{}}
	for _, category := range []string{"node", "device", "image", "log", "advanced", "help"} {
		r, err := p.run(t, "alice", "", "walt", category, "--help")
		if err != nil || r.code != 0 {
			t.Fatalf("walt %s --help: %+v, %v", category, r, err)
		}
		_, list, _ := strings.Cut(r.out, "Sub-commands:\n")
		for line := range strings.Lines(list) {
			if fields := strings.Fields(line); len(fields) > 0 {
				all.names = append(all.names, category+" "+fields[0])
			}
		}
	}
	if len(all.names) != 54 {
		t.Fatalf("the client has %d subcommands, not 54: %q", len(all.names), all.names)
	}
	all.names = append(all.names, "completion helper")
	return all
}

// cover records that a command was tried.
func (r *rows) cover(state string, words ...string) {
	name := strings.Join(words[1:min(3, len(words))], " ")
	if words[0] == "walt-autocomplete-helper" {
		name = "completion helper"
	}
	if slices.Contains(r.names, name) && r.state[name] != covered {
		r.state[name] = state
	}
}

// print shows the table of the checklist. If all sessions were played, each row must be
// there.
func (r *rows) print(t *testing.T, complete bool) {
	t.Helper()
	var table strings.Builder
	count := map[string]int{}
	for _, name := range r.names {
		state := r.state[name]
		if state == "" {
			state = "MISSING"
			if complete {
				t.Errorf("walt %s is not tried", name)
			}
		}
		count[state]++
		fmt.Fprintf(&table, "%-32s %s\n", name, state)
	}
	t.Logf("checklist of client-api 6.1: %v\n%s", count, &table)
}

// TestCommands goes through the sessions of testdata and those of a terminal.
func TestCommands(t *testing.T) {
	var all *rows
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	played := 0
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			p := startPlatform(t)
			if all == nil {
				all = readRows(t, p)
			}
			p.play(t, file, all)
			played++
		})
	}
	t.Run("terminals", func(t *testing.T) {
		p := startPlatform(t)
		if all == nil {
			all = readRows(t, p)
		}
		p.terminals(t, all)
		p.completionScripts(t)
		played++
	})
	if all == nil {
		t.Skip("nothing was selected")
	}
	t.Run("checklist", func(t *testing.T) { all.print(t, played == len(files)+1) })
}

// completionScripts has the shells themselves read what users have them load.
func (p *platform) completionScripts(t *testing.T) {
	for _, shell := range []string{"bash", "zsh"} {
		path, err := exec.LookPath(shell)
		if err != nil {
			t.Logf("not tried, as this machine has no %s: whether it accepts its completion script", shell)
			continue
		}
		script, err := p.run(t, "alice", "", "walt", "advanced", "dump-"+shell+"-autocomplete")
		if err != nil || script.code != 0 {
			t.Fatalf("%+v, %v", script, err)
		}
		check := exec.CommandContext(t.Context(), path, "-n")
		check.Stdin = strings.NewReader(script.out)
		if out, err := check.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s refuses its completion script: %v\n%s", shell, err, out)
		}
	}
}

// play goes through one session.
func (p *platform) play(t *testing.T, file string, all *rows) {
	steps, err := readTranscript(file)
	if err != nil {
		t.Fatal(err)
	}
	var updated strings.Builder
	for _, s := range steps {
		p.try(t, file, &s, all)
		updated.WriteString(s.source())
	}
	if *update {
		if err := os.WriteFile(file, []byte(updated.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// try does one step.
func (p *platform) try(t *testing.T, file string, s *step, all *rows) {
	t.Helper()
	title := fmt.Sprintf("%s:%d: %s", file, s.line, strings.Join(s.words, " "))
	if !s.command {
		if err := p.do(s.words); err != nil {
			t.Errorf("%s: %v", title, err)
		}
		return
	}
	began := time.Now()
	r, err := p.run(t, s.user, s.input, s.words...)
	if took := time.Since(began); took > slow {
		t.Logf("%s took %.1f s", title, took.Seconds())
	}
	if err != nil {
		t.Errorf("%s: %v", title, err)
		return
	}
	if s.later {
		all.cover(later, s.words...)
		if !clear(r) {
			t.Errorf("%s: no clear message but %+v", title, r)
		}
		return
	}
	all.cover(covered, s.words...)
	out, complaints := show(r.out), show(r.err)
	if r.code == s.code && matches(s.out, out) && matches(s.err, complaints) {
		return
	}
	if *update {
		s.code, s.out, s.err = r.code, out, complaints
		return
	}
	t.Errorf("%s: exit code %d, expected %d\nprinted:\n%s%s\nexpected:\n%s%s", title, r.code, s.code,
		out, marked("!", complaints), s.out, marked("!", s.err))
}

// trace is how Python says that it did not expect something.
var trace = regexp.MustCompile(`Traceback|communicating with WalT server`)

// clear tells whether a command that failed said why.
func clear(r result) bool {
	text := strings.TrimSpace(r.out + r.err)
	return text != "" && !trace.MatchString(text)
}

package text

import (
	"slices"
	"strings"
)

// CompactModels writes a list of node models in the short form of image listings
// (§2.10.6), as "rpi-[b|2-b|3-b],pc-x86-64".
//
// Models are walks in a graph that has one state per distinct character; chains of
// states are merged, then each state that branches prints its alternatives in brackets
// or in full, whichever is shorter.
func CompactModels(models []string) string {
	if len(models) == 1 {
		return models[0]
	}
	g := &modelGraph{
		start: &modelState{to: map[int]*modelState{}},
		end:   &modelState{to: map[int]*modelState{}},
		next:  map[int]int{},
	}
	for _, model := range models {
		g.walk(model)
	}
	g.simplify()
	return strings.Join(g.alternatives(g.start, g.start.numbers()), ",")
}

// A modelState is a text, and where each numbered transition out of it leads.
type modelState struct {
	text string
	to   map[int]*modelState
}

func (s *modelState) numbers() []int {
	all := make([]int, 0, len(s.to))
	for n := range s.to {
		all = append(all, n)
	}
	slices.Sort(all)
	return all
}

// modelGraph holds the states, and for each transition the one that follows it in the
// same word.
type modelGraph struct {
	start, end *modelState
	states     []*modelState // but start and end, in order of appearance
	next       map[int]int
	count      int
}

func (g *modelGraph) walk(word string) {
	at := g.start
	step := func(to *modelState) {
		if at != g.start {
			g.next[g.count-1] = g.count
		}
		at.to[g.count] = to
		g.count++
		at = to
	}
	for _, char := range word {
		step(g.state(string(char)))
	}
	step(g.end)
}

func (g *modelGraph) state(char string) *modelState {
	for _, s := range g.states {
		if s.text == char {
			return s
		}
	}
	s := &modelState{text: char, to: map[int]*modelState{}}
	g.states = append(g.states, s)
	return s
}

// simplify merges states into the ones that always follow them, until none does.
func (g *modelGraph) simplify() {
	for changed := true; changed; {
		changed = false
		g.states = slices.DeleteFunc(g.states, func(s *modelState) bool { return len(s.to) == 0 })
		for _, s := range g.states {
			if g.merge(s) {
				changed = true
			}
		}
	}
}

// merge makes s take the text and the transitions of the only state that follows it. The
// other ways into that state are left as they are.
func (g *modelGraph) merge(s *modelState) bool {
	var only *modelState
	for _, to := range s.to {
		if only != nil && to != only {
			return false
		}
		only = to
	}
	if only == nil || only == g.end || only == s {
		return false
	}
	s.text += only.text
	for n := range s.to {
		after := g.next[n]
		s.to[n] = only.to[after]
		delete(only.to, after)
		g.next[n] = g.next[after]
	}
	return true
}

// alternatives returns what can be read from s on, having left it by one of numbers.
func (g *modelGraph) alternatives(s *modelState, numbers []int) []string {
	var order []*modelState
	groups := map[*modelState][]int{}
	for _, n := range numbers {
		to := s.to[n]
		if groups[to] == nil {
			order = append(order, to)
		}
		groups[to] = append(groups[to], n)
	}
	var read []string
	for _, to := range order {
		if to == g.end {
			read = append(read, "")
			continue
		}
		var after []int
		for _, n := range groups[to] {
			after = append(after, g.next[n])
		}
		read = append(read, g.expand(to, after))
	}
	return read
}

func (g *modelGraph) expand(s *modelState, numbers []int) string {
	read := g.alternatives(s, numbers)
	if len(read) == 1 {
		return s.text + read[0]
	}
	optional := len(read) == 2 && (read[0] == "") != (read[1] == "")
	inBrackets := strings.Join(read, "|")
	if optional {
		inBrackets = strings.Trim(inBrackets, "|")
	}
	short := s.text + "[" + inBrackets + "]"
	full := make([]string, len(read))
	for i, r := range read {
		full[i] = s.text + strings.Join(splitTop(r), ","+s.text)
	}
	long := strings.Join(full, ",")
	if len(short) < len(long) || optional && len(short) == len(long) {
		return short
	}
	return long
}

// splitTop splits at the commas that are not in brackets.
func splitTop(s string) []string {
	var parts []string
	depth, from := 0, 0
	for i, c := range s {
		switch c {
		case '[':
			depth++
		case ']':
			depth--
		case ',':
			if depth == 0 {
				parts = append(parts, s[from:i])
				from = i + 1
			}
		}
	}
	return append(parts, s[from:])
}

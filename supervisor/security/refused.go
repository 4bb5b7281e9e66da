package security

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/waltos/waltos/supervisor/sandbox/seccomp"
)

// Refused is a system call that the filter of a unit has refused.
type Refused struct {
	Call    string `json:"call"`
	Command string `json:"command"` // name of the process
	Count   int    `json:"count"`   // as far as the kernel's log kept up
}

// maxRefused bounds how many kinds of refusals are remembered, of all units.
const maxRefused = 1000

// Refusals gathers what the kernel logs of refused calls.
type Refusals struct {
	proc string

	mu  sync.Mutex
	all map[refusal]int
}

type refusal struct{ unit, call, command string }

// NewRefusals returns an empty set; proc is "/proc".
func NewRefusals(proc string) *Refusals { return &Refusals{proc: proc, all: map[refusal]int{}} }

// Note takes a line of the kernel's log. If it tells of a refused call, and the process is
// still there, its unit and the words for its journal are returned; of the same call only
// once.
func (r *Refusals) Note(line string) (unit, words string) {
	call, command, pid := parseRefusal(line)
	if pid == 0 {
		return "", ""
	}
	group, err := os.ReadFile(filepath.Join(r.proc, strconv.Itoa(pid), "cgroup"))
	if err != nil {
		return "", "" // killed for it: the unit's end says so
	}
	if unit = unitOf(string(group)); unit == "" {
		return "", ""
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	key := refusal{unit, call, command}
	if _, known := r.all[key]; !known && len(r.all) >= maxRefused {
		return "", ""
	}
	r.all[key]++
	if r.all[key] > 1 {
		return "", ""
	}
	return unit, fmt.Sprintf("its sandbox refused the system call %s of %s", call, command)
}

// Of returns the refusals of one unit.
func (r *Refusals) Of(unit string) []Refused {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []Refused
	for key, count := range r.all {
		if key.unit == unit {
			list = append(list, Refused{key.call, key.command, count})
		}
	}
	slices.SortFunc(list, func(a, b Refused) int { return strings.Compare(a.Call+a.Command, b.Call+b.Command) })
	return list
}

// parseRefusal reads an audit message of type SECCOMP, as the kernel logs it without a
// daemon that takes them.
func parseRefusal(line string) (call, command string, pid int) {
	if !strings.HasPrefix(line, "audit: type=1326 ") {
		return "", "", 0
	}
	fields := map[string]string{}
	for field := range strings.FieldsSeq(line) {
		name, value, _ := strings.Cut(field, "=")
		fields[name] = value
	}
	pid, err := strconv.Atoi(fields["pid"])
	arch, archErr := strconv.ParseUint(fields["arch"], 16, 32)
	number, numberErr := strconv.ParseUint(fields["syscall"], 10, 32)
	if err != nil || archErr != nil || numberErr != nil || pid < 1 {
		return "", "", 0
	}
	// A name with a blank is in hexadecimal digits, which is good enough.
	return seccomp.Name(uint32(arch), uint32(number)), strings.Trim(fields["comm"], `"`), pid
}

// unitOf finds the unit in the text of /proc/PID/cgroup.
func unitOf(text string) string {
	for line := range strings.Lines(text) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::/units/"); ok {
			name, _, _ := strings.Cut(path, "/")
			return name
		}
	}
	return ""
}

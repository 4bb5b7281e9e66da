package seccomp

import (
	"embed"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

//go:embed groups.txt table_*.txt
var texts embed.FS

// architectures are the values of seccomp_data.arch, by GOARCH.
var architectures = map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64}

// Architectures lists those that filters can be made for, as GOARCH.
func Architectures() []string { return slices.Sorted(maps.Keys(architectures)) }

// table returns the calls of an architecture.
func table(arch string) (map[string]uint32, error) {
	if _, ok := architectures[arch]; !ok {
		return nil, fmt.Errorf("the calls of architecture %s are not known", arch)
	}
	text, err := texts.ReadFile("table_" + arch + ".txt")
	if err != nil {
		return nil, err
	}
	numbers := map[string]uint32{}
	for line := range strings.Lines(string(text)) {
		number, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		value, err := strconv.ParseUint(number, 10, 16)
		if err != nil {
			return nil, fmt.Errorf("table of %s: %w", arch, err)
		}
		numbers[name] = uint32(value)
	}
	return numbers, nil
}

// Name returns the name of a call by its number and the architecture as the kernel logs it
// (AUDIT_ARCH_…), or the number.
func Name(audit, number uint32) string {
	for arch, value := range architectures {
		if value != audit {
			continue
		}
		numbers, err := table(arch)
		if err != nil {
			break
		}
		for name, n := range numbers {
			if n == number {
				return name
			}
		}
	}
	return strconv.FormatUint(uint64(number), 10)
}

// Groups is the list of all groups, for people.
func Groups() (string, error) {
	text, err := texts.ReadFile("groups.txt")
	return string(text), err
}

// groups of calls, and groups of groups.
type groups struct {
	calls  map[string][]string
	unions map[string][]string
}

func readGroups() (groups, error) {
	g := groups{map[string][]string{}, map[string][]string{}}
	text, err := Groups()
	if err != nil {
		return g, err
	}
	into, name := g.calls, ""
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] == "#" {
			continue
		}
		if line[0] != ' ' {
			if n, ok := strings.CutSuffix(fields[0], ":"); ok {
				into, name, fields = g.calls, n, fields[1:]
			} else {
				into, name, fields = g.unions, fields[0], fields[2:]
			}
		}
		into[name] = append(into[name], fields...)
	}
	return g, nil
}

// Expand returns all calls of a list of "@group" and names of calls.
func Expand(list []string) (map[string]bool, error) {
	g, err := readGroups()
	if err != nil {
		return nil, err
	}
	all := map[string]bool{}
	var add func(group string) error
	add = func(group string) error {
		if union, ok := g.unions[group]; ok {
			for _, member := range union {
				if err := add(member); err != nil {
					return err
				}
			}
			return nil
		}
		calls, ok := g.calls[group]
		if !ok {
			return fmt.Errorf("no group of system calls is named @%s", group)
		}
		for _, call := range calls {
			all[call] = true
		}
		return nil
	}
	for _, item := range list {
		if group, ok := strings.CutPrefix(item, "@"); ok {
			if err := add(group); err != nil {
				return nil, err
			}
			continue
		}
		if !g.has(item) {
			return nil, fmt.Errorf("no system call is named %s", item)
		}
		all[item] = true
	}
	return all, nil
}

func (g groups) has(call string) bool {
	for _, calls := range g.calls {
		if slices.Contains(calls, call) {
			return true
		}
	}
	return false
}

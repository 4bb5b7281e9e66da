package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/waltos/waltos/hcl"
	"golang.org/x/sys/unix"
)

// cpuPeriod is the time over which cpu.max counts, in microseconds, as the kernel has it.
const cpuPeriod = 100_000

// Open makes the group of a unit if need be and sets its limits. Limits that cannot be set are
// an error beside a usable group. data is a folder on the disk that io_max is about.
func Open(root, name string, limits *hcl.Limits, data string) (*Group, error) {
	g := &Group{filepath.Join(root, name)}
	// Linux 6.14, and stable kernels with its change to cgroup.kill, kill what is born into a
	// group that was killed once, so an empty group is made anew. One that is not stays.
	_ = unix.Rmdir(g.dir)
	if err := os.MkdirAll(g.dir, 0o755); err != nil {
		return nil, fmt.Errorf("cannot make control group: %w", err)
	}
	return g, g.Limit(limits, data)
}

// Limit sets the limits of the group, and takes back those that are given no more.
func (g *Group) Limit(limits *hcl.Limits, data string) error {
	var failures []error
	for _, s := range settings(limits) {
		failures = append(failures, g.set(s.file, s.value, s.given))
	}
	disk, err := diskOf(data)
	if err != nil && limits.IOMax != "" {
		return errors.Join(append(failures, fmt.Errorf("cannot limit control group: %w", err))...)
	}
	if err == nil {
		rate := size(limits.IOMax)
		failures = append(failures, g.set("io.max", disk+" rbps="+rate+" wbps="+rate, limits.IOMax != ""))
	}
	return errors.Join(failures...)
}

// setting is a file of the group; what is not given has the kernel's default.
type setting struct {
	file, value string
	given       bool
}

func settings(l *hcl.Limits) []setting {
	number := func(file string, value int, normal string) setting {
		if value == 0 {
			return setting{file, normal, false}
		}
		return setting{file, strconv.Itoa(value), true}
	}
	quota := "max"
	if percent, err := hcl.ParsePercent(l.CPUMax); err == nil {
		quota = strconv.Itoa(percent * cpuPeriod / 100)
	}
	return []setting{
		{"memory.max", size(l.Memory), l.Memory != ""},
		{"memory.high", size(l.MemoryHigh), l.MemoryHigh != ""},
		{"memory.swap.max", size(l.Swap), l.Swap != ""},
		number("pids.max", l.Tasks, "max"),
		number("cpu.weight", l.CPU, "100"),
		{"cpu.max", quota + " " + strconv.Itoa(cpuPeriod), l.CPUMax != ""},
		number("io.weight", l.IO, "default 100"),
	}
}

// size is a size as the kernel writes it; those that hcl has refused do not come here.
func size(text string) string {
	value, err := hcl.ParseSize(text)
	if err != nil {
		return "max"
	}
	return strconv.FormatInt(value, 10)
}

// set writes a file of the group. A kernel without a controller is in nobody's way who does
// not ask for it.
func (g *Group) set(file, value string, given bool) error {
	err := os.WriteFile(filepath.Join(g.dir, file), []byte(value), 0)
	if err != nil && given {
		return fmt.Errorf("cannot limit control group: %w", err)
	}
	return nil
}

// diskOf returns the number, as "8:0", of the whole disk that a path is on.
func diskOf(path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return "", fmt.Errorf("cannot find the disk of %s: %w", path, err)
	}
	number := fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
	folder, err := filepath.EvalSymlinks(filepath.Join("/sys/dev/block", number))
	if err != nil {
		return "", fmt.Errorf("cannot find the disk of %s: %w", path, err)
	}
	if _, err := os.Stat(filepath.Join(folder, "partition")); err != nil {
		return number, nil
	}
	text, err := os.ReadFile(filepath.Join(filepath.Dir(folder), "dev"))
	if err != nil {
		return "", fmt.Errorf("cannot find the disk of %s: %w", path, err)
	}
	return strings.TrimSpace(string(text)), nil
}

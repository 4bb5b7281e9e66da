package cgroup

import (
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxProcesses bounds how many processes of a group are looked at.
const maxProcesses = 256

// Usage is what a group uses at a moment; what the kernel does not tell is zero.
type Usage struct {
	Memory      int64         `json:"memory"` // bytes
	MemoryPeak  int64         `json:"memory_peak"`
	MemoryLimit int64         `json:"memory_limit,omitempty"` // 0: none
	Tasks       int64         `json:"tasks"`
	TasksLimit  int64         `json:"tasks_limit,omitempty"` // 0: none
	CPU         time.Duration `json:"cpu"`
	OOMKills    int           `json:"oom_kills"`
	Processes   []Process     `json:"processes,omitempty"` // parents before their children
}

// Process is one process of a group.
type Process struct {
	PID     int    `json:"pid"`
	Depth   int    `json:"depth"` // below the first process of the group that is its ancestor
	Memory  int64  `json:"memory"`
	Command string `json:"command"`
}

// Look measures the group of that name below a root.
func Look(root, name string) Usage {
	g := &Group{filepath.Join(root, name)}
	u := Usage{
		Memory: g.Memory(), MemoryPeak: g.number("memory.peak"), MemoryLimit: g.number("memory.max"),
		Tasks: g.number("pids.current"), TasksLimit: g.number("pids.max"), OOMKills: g.OOMKills(),
	}
	if text, err := os.ReadFile(filepath.Join(g.dir, "cpu.stat")); err == nil {
		for line := range strings.Lines(string(text)) {
			if value, ok := strings.CutPrefix(strings.TrimSpace(line), "usage_usec "); ok {
				micros, err := strconv.ParseInt(value, 10, 64)
				if err == nil && micros < math.MaxInt64/1000 {
					u.CPU = time.Duration(micros) * time.Microsecond
				}
			}
		}
	}
	u.Processes = family(g.processes(), "/proc")
	return u
}

// number reads a file of one number; 0 stands for "max" and for what is not there.
func (g *Group) number(file string) int64 {
	text, err := os.ReadFile(filepath.Join(g.dir, file))
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// processes lists the processes of the group and of those below it.
func (g *Group) processes() []int {
	var all []int
	_ = filepath.WalkDir(g.dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return nil // it has gone meanwhile
		}
		text, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		if err != nil {
			return nil
		}
		for field := range strings.FieldsSeq(string(text)) {
			if pid, err := strconv.Atoi(field); err == nil && len(all) < maxProcesses {
				all = append(all, pid)
			}
		}
		return nil
	})
	slices.Sort(all)
	return all
}

// family orders processes as a tree, by what proc tells of them.
func family(pids []int, proc string) []Process {
	parents := map[int]int{}
	for _, pid := range pids {
		parents[pid] = parent(proc, pid)
	}
	var list []Process
	var add func(pid, depth int)
	add = func(pid, depth int) {
		list = append(list, Process{PID: pid, Depth: depth, Memory: resident(proc, pid), Command: command(proc, pid)})
		for _, other := range pids {
			if parents[other] == pid {
				add(other, depth+1)
			}
		}
	}
	for _, pid := range pids {
		if _, inside := parents[parents[pid]]; !inside {
			add(pid, 0)
		}
	}
	return list
}

// parent reads field 4 of /proc/PID/stat (proc(5)); the name before it may hold anything.
func parent(proc string, pid int) int {
	text, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 2 {
		return 0
	}
	n, err := strconv.Atoi(fields[1])
	if err != nil || n == pid {
		return 0
	}
	return n
}

func resident(proc string, pid int) int64 {
	text, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "statm"))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}

// maxCommand bounds the command line that is shown, in bytes.
const maxCommand = 256

func command(proc string, pid int) string {
	text, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "cmdline"))
	if err != nil {
		return ""
	}
	line := strings.TrimSpace(strings.ReplaceAll(string(text), "\x00", " "))
	if len(line) > maxCommand {
		line = line[:maxCommand]
	}
	return strings.ToValidUTF8(line, "?")
}

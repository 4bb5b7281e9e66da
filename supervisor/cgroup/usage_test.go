package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

func TestFamily(t *testing.T) {
	proc := t.TempDir()
	for pid, p := range map[int]struct {
		parent int
		name   string
	}{10: {1, "sh"}, 11: {10, "a) b (c"}, 12: {11, "leaf"}, 20: {999, "orphan"}} {
		dir := filepath.Join(proc, fmt.Sprint(pid))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for file, text := range map[string]string{
			"stat": fmt.Sprintf("%d (%s) S %d 1 1 0", pid, p.name, p.parent), "statm": "100 7 3", "cmdline": p.name + "\x00-x\x00",
		} {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	got := ""
	for _, p := range family([]int{10, 11, 12, 20, 21}, proc) {
		got += fmt.Sprintf("%d %d %s|", p.PID, p.Depth, p.Command)
	}
	if want := "10 0 sh -x|11 1 a) b (c -x|12 2 leaf -x|20 0 orphan -x|21 0 |"; got != want {
		t.Errorf("%s", got)
	}
	if got := resident(proc, 10); got != 7*int64(os.Getpagesize()) {
		t.Error(got)
	}
}

func TestLook(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "u")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string]string{
		"memory.current": "100\n", "memory.peak": "200\n", "memory.max": "max\n", "pids.current": "3\n", "pids.max": "50\n",
		"cpu.stat": "usage_usec 1500000\nuser_usec 1\n", "memory.events": "oom 1\noom_kill 2\n", "cgroup.procs": "x\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	u := Look(root, "u")
	if u.Memory != 100 || u.MemoryPeak != 200 || u.MemoryLimit != 0 || u.Tasks != 3 || u.TasksLimit != 50 || u.CPU.Seconds() != 1.5 || u.OOMKills != 2 || len(u.Processes) != 0 {
		t.Errorf("%+v", u)
	}
	if u := Look(root, "none"); u.Memory != 0 || u.CPU != 0 {
		t.Errorf("%+v", u)
	}
}

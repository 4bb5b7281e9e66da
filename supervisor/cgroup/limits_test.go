package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/waltos/waltos/hcl"
)

// TestLimit writes to a plain folder what the kernel would get; TestLimitsAreTold of package
// process has the kernel judge.
func TestLimit(t *testing.T) {
	root := t.TempDir()
	read := func(file string) string {
		text, err := os.ReadFile(filepath.Join(root, "u", file))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		return string(text)
	}
	full := &hcl.Limits{
		Memory: "64M", MemoryHigh: "48M", Swap: "0", Tasks: 10, CPU: 500, CPUMax: "150%", IO: 50,
	}
	g, err := Open(root, "u", full, root)
	if err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		"memory.max": "67108864", "memory.high": "50331648", "memory.swap.max": "0", "pids.max": "10",
		"cpu.weight": "500", "cpu.max": "150000 100000", "io.weight": "50",
	} {
		if got := read(file); got != want {
			t.Errorf("%s is %q, want %q", file, got, want)
		}
	}
	// What is given no more is taken back.
	if err := g.Limit(&hcl.Limits{}, root); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		"memory.max": "max", "memory.high": "max", "memory.swap.max": "max", "pids.max": "max",
		"cpu.weight": "100", "cpu.max": "max 100000", "io.weight": "default 100",
	} {
		if got := read(file); got != want {
			t.Errorf("%s is %q, want %q", file, got, want)
		}
	}
	if disk, err := diskOf(root); err != nil {
		t.Logf("io.max is not tried: %v", err)
	} else if err := g.Limit(&hcl.Limits{IOMax: "20M"}, root); err != nil {
		t.Error(err)
	} else if got, want := read("io.max"), disk+" rbps=20971520 wbps=20971520"; got != want {
		t.Errorf("io.max is %q, want %q", got, want)
	}
	if err := g.Limit(&hcl.Limits{IOMax: "20M"}, "/nonexistent"); err == nil {
		t.Error("a disk that is not there is limited")
	}
}

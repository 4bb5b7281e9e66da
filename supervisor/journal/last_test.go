package journal

import (
	"os"
	"testing"
)

func TestLast(t *testing.T) {
	j := New(DefaultLimit)
	dir := t.TempDir()
	if err := j.Attach(dir); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		j.Append("a", "x")
		j.Append("b", "y")
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	for lines, first := range map[int]uint64{0: 2, 1: 200, 7: 188, 1000: 2} {
		var got []uint64
		err := Last(dir, lines, func(r Record) bool { return r.Unit == "b" }, func(r Record) error { got = append(got, r.Number); return nil })
		if err != nil || got[0] != first || got[len(got)-1] != 200 || lines > 0 && len(got) != min(lines, 100) {
			t.Errorf("%d lines: %v, %v", lines, err, got)
		}
	}
}

func TestKernel(t *testing.T) {
	f, err := os.Open("/dev/kmsg")
	if err != nil {
		t.Skip("the messages of the kernel may not be read here")
	}
	f.Close()
	lines, err := Kernel()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lines {
		if l.Level < 0 || l.Level > 7 {
			t.Errorf("%+v", l)
		}
	}
}

package report

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func TestCriticalPath(t *testing.T) {
	second := func(n int) time.Duration { return time.Duration(n) * time.Second }
	b := Boot{
		Ready: second(9),
		Units: []UnitBoot{
			{Name: "net", Began: second(1), Ready: second(3)},
			{Name: "db", Began: second(1), Ready: second(5)},
			{Name: "main", Began: second(5), Ready: second(7), After: []string{"net", "db", "nobody"}},
			{Name: "web", Began: second(3), Ready: second(4), After: []string{"net"}},
			{Name: "all", Began: second(7), Ready: second(7), After: []string{"main", "web"}},
			{Name: "never", Began: second(1)},
			{Name: "later", Began: second(20), Ready: second(21), After: []string{"all"}},
		},
	}
	if got := b.CriticalPath(); !slices.Equal(got, []string{"db", "main", "all"}) {
		t.Errorf("%v", got)
	}
	cycle := Boot{Units: []UnitBoot{{Name: "a", Ready: 1, After: []string{"b"}}, {Name: "b", Ready: 1, After: []string{"a"}}}}
	if got := cycle.CriticalPath(); len(got) != 2 {
		t.Errorf("%v", got)
	}
	if got := (Boot{}).CriticalPath(); len(got) != 0 {
		t.Errorf("%v", got)
	}
}

func TestFirmwareTime(t *testing.T) {
	dir := t.TempDir()
	for text, want := range map[string]time.Duration{
		"2500000000\n": 2500 * time.Millisecond, "-1": 0, "9000000000000000000": 0, "99999999999999999999": 0, "": 0, "x": 0,
	} {
		if err := os.WriteFile(filepath.Join(dir, "exitbootservice_end_ns"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := firmwareTime(dir); got != want {
			t.Errorf("%q is %v", text, got)
		}
	}
	if got := firmwareTime(filepath.Join(dir, "none")); got != 0 {
		t.Error(got)
	}
}

// TestTwoLives: the second life of PID 1 goes on with the report of the first.
func TestTwoLives(t *testing.T) {
	path := filepath.Join(t.TempDir(), "walt", "boot.json")
	first := &Report{}
	first.Begin("zero")()
	first.Begin("one") // which goes on in the second life
	if err := first.Save(path); err != nil {
		t.Fatal(err)
	}
	second := Load(path)
	second.Begin("two")()
	phases := second.Phases()
	if len(phases) != 3 || phases[1].Name != "one" || phases[2].Name != "two" || phases[1].End == 0 || phases[2].Begin < phases[1].End {
		t.Errorf("%+v", phases)
	}
	if err := os.WriteFile(path, []byte("{torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := Load(path).Phases(); len(got) != 0 {
		t.Errorf("%+v", got)
	}
}

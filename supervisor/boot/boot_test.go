package boot

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestParameter(t *testing.T) {
	const line = "console=tty0 quiet panic=10 walt.root=root-a panic=5 name=\"q\" walt.root=evil\n"
	for name, want := range map[string]string{"panic": "5", "walt.root": "root-a", "name": "q", "console": "tty0"} {
		if got, ok := parameter(line, name); !ok || got != want {
			t.Errorf("%s is %q, %v", name, got, ok)
		}
	}
	if all := values("walt.verity=signed x walt.verity=added walt.verity", "walt.verity"); !slices.Equal(all, []string{"signed", "added"}) {
		t.Errorf("values %q", all)
	}
	if _, ok := parameter(line, "quiet"); ok {
		t.Error("a flag has a value")
	}
}

func TestStepsSayWhatToDo(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range Steps() {
		if s.Name == "" || s.Advice == "" || seen[s.String()] {
			t.Errorf("step %+v", s)
		}
		seen[s.String()] = true
	}
}

func TestHugePagesAreForThoseWhoAsk(t *testing.T) {
	file := filepath.Join(t.TempDir(), "enabled")
	if err := limitHugePages(file); err != nil {
		t.Errorf("a kernel without them: %v", err)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := limitHugePages(file); err != nil {
		t.Error(err)
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "madvise" {
		t.Errorf("%q, %v", text, err)
	}
}

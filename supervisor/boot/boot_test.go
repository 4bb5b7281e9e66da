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

func TestSecureBoot(t *testing.T) {
	dir := t.TempDir()
	for content, want := range map[string]bool{"\x06\x00\x00\x00\x01": true, "\x06\x00\x00\x00\x00": false} {
		if err := os.WriteFile(filepath.Join(dir, secureBoot), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if on, err := readSecureBoot(dir); err != nil || on != want {
			t.Errorf("%q is %v, %v", content, on, err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, secureBoot), []byte("\x01"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readSecureBoot(dir); err == nil {
		t.Error("a variable of one byte was read")
	}
	noted := filepath.Join(dir, "data")
	for value, want := range map[byte]bool{secureBootEnabled: true, 2: false, 0: false} {
		page := make([]byte, 4096)
		page[secureBootAt] = value
		if err := os.WriteFile(noted, page, 0o600); err != nil {
			t.Fatal(err)
		}
		if on, err := notedSecureBoot(noted); err != nil || on != want {
			t.Errorf("value %d is %v, %v", value, on, err)
		}
	}
	if on, err := readSecureBoot(t.TempDir()); err != nil || on {
		t.Errorf("without the variable: %v, %v", on, err)
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

package secureboot

import (
	"os"
	"path/filepath"
	"testing"
)

func TestVariables(t *testing.T) {
	const yes, no, cut = "\x06\x00\x00\x00\x01", "\x06\x00\x00\x00\x00", "\x01"
	for _, test := range []struct {
		enabling, settingUp string
		want                State
		fails               bool
	}{
		{yes, no, Enabled, false},
		{no, no, Disabled, false},
		{no, yes, Setup, false},
		{"", "", Disabled, false},
		{cut, no, "", true},
		{no, cut, "", true},
	} {
		dir := t.TempDir()
		for name, content := range map[string]string{enabling: test.enabling, settingUp: test.settingUp} {
			if content == "" {
				continue
			}
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := read(dir); got != test.want || (err != nil) != test.fails {
			t.Errorf("%+v gives %q, %v", test, got, err)
		}
	}
}

func TestNoted(t *testing.T) {
	file := filepath.Join(t.TempDir(), "data")
	for value, want := range map[byte]State{notedEnabled: Enabled, 2: Disabled, 0: Disabled} {
		page := make([]byte, 4096)
		page[notedAt] = value
		if err := os.WriteFile(file, page, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := readNoted(file); err != nil || got != want {
			t.Errorf("value %d is %q, %v", value, got, err)
		}
	}
	if err := os.WriteFile(file, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readNoted(file); err == nil {
		t.Error("parameters that are cut off were read")
	}
}

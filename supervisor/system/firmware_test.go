package system

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCopyFirmware(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "esp/firmware"), filepath.Join(dir, "data/firmware")
	if err := copyFirmware(from, to); err != nil {
		t.Errorf("without firmware: %v", err)
	}
	write := func(name string, size int64) {
		path := filepath.Join(from, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
		if size > 0 {
			if err := os.Truncate(path, size); err != nil {
				t.Fatal(err)
			}
		}
	}
	write("bnx2/bnx2-mips-09.fw", 0)
	write("e100.bin", 0)
	for range 2 {
		if err := copyFirmware(from, to); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"bnx2/bnx2-mips-09.fw", "e100.bin"} {
		if got, err := os.ReadFile(filepath.Join(to, name)); err != nil || string(got) != name {
			t.Errorf("%s is %q, %v", name, got, err)
		}
	}
	write("huge", maxFirmware)
	if err := copyFirmware(from, to); err == nil || !strings.Contains(err.Error(), "more than 128 MiB") {
		t.Errorf("too much: %v", err)
	}
	if _, err := os.Stat(filepath.Join(to, "huge")); err == nil {
		t.Error("too much was copied")
	}
}

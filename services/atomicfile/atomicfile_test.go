package atomicfile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/waltos/waltos/services/internal/nettest"
)

// only checks that a folder holds one file, with that content.
func only(t *testing.T, path, content string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 {
		t.Errorf("the folder holds %v", entries)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != content {
		t.Errorf("the file holds %.40q, %v; want %.40q", text, err, content)
	}
}

func TestWrite(t *testing.T) {
	defer unix.Umask(unix.Umask(0o077))
	path := filepath.Join(t.TempDir(), "file")
	for _, content := range []string{"first", "", "the third one"} {
		if err := Write(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		only(t, path, content)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o644 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	f, err := Replace(path, []byte("one"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(" two"); err != nil {
		t.Fatal(err)
	}
	only(t, path, "one two")
}

func TestFailures(t *testing.T) {
	dir := t.TempDir()
	if err := Write(filepath.Join(dir, "none", "file"), nil, 0o644); err == nil {
		t.Error("a folder that does not exist is accepted")
	}
	folder := filepath.Join(dir, "folder")
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := Write(folder, nil, 0o644); err == nil {
		t.Error("a folder is replaced")
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

// A full disk costs nothing of what is there.
func TestFullDisk(t *testing.T) {
	if !nettest.Enter(t) {
		return
	}
	dir := nettest.SmallDisk(t, 64)
	path := filepath.Join(dir, "file")
	if err := Write(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := Write(path, []byte(strings.Repeat("x", 1<<20)), 0o600)
	if err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("got %v", err)
	}
	only(t, path, "precious")
}

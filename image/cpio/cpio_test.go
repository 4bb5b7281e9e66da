package cpio

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/waltos/waltos/image/tree"
)

func TestWrite(t *testing.T) {
	tr := tree.New()
	add := func(name string, f *tree.File) {
		t.Helper()
		if err := tr.Add(name, f); err != nil {
			t.Fatal(err)
		}
	}
	add("/init", &tree.File{Mode: 0o755, Content: []byte("program")})
	add("/sbin/modprobe", &tree.File{Mode: fs.ModeSymlink | 0o777, Target: "/init"})
	add("/lib/a", &tree.File{Mode: 0o644, Content: []byte("shared")})
	if err := tr.Link("/lib/b", "/lib/a", "test"); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := Write(&out, tr, time.Unix(1e9, 0)); err != nil {
		t.Fatal(err)
	}
	if out.Len()%4 != 0 {
		t.Errorf("length %d is not a multiple of 4", out.Len())
	}

	cpio, err := exec.LookPath("cpio")
	if err != nil {
		t.Skip("not judged: cpio is not on this machine")
	}
	dir := t.TempDir()
	cmd := exec.Command(cpio, "-idm", "--quiet", "--no-preserve-owner")
	cmd.Dir, cmd.Stdin = dir, &out
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cpio: %v\n%s", err, text)
	}
	for name, want := range map[string]string{"init": "program", "lib/a": "shared", "lib/b": "shared"} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if target, _ := os.Readlink(filepath.Join(dir, "sbin/modprobe")); target != "/init" {
		t.Errorf("link to %q", target)
	}
	info, err := os.Stat(filepath.Join(dir, "init"))
	if err != nil || info.Mode() != 0o755 || info.ModTime().Unix() != 1e9 {
		t.Errorf("init: %v %v", info, err)
	}
}

func TestRefusals(t *testing.T) {
	tr := tree.New()
	if err := tr.Add("/ping", &tree.File{Mode: 0o755, Xattrs: map[string]string{"security.capability": "x"}}); err != nil {
		t.Fatal(err)
	}
	if err := Write(&bytes.Buffer{}, tr, time.Unix(0, 0)); err == nil {
		t.Error("extended attributes were accepted")
	}
}

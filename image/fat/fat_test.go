package fat

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/waltos/waltos/image/inputs/inputstest"
	"github.com/waltos/waltos/image/tree"
)

func content(seed byte, n int) []byte {
	data := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(data)
	return data
}

func sample(t *testing.T) (*tree.Tree, map[string][]byte) {
	t.Helper()
	files := map[string][]byte{
		"/EFI/BOOT/BOOTX64.EFI":                          content(1, 300_001),
		"/EFI/Linux/walt-10.0_some long name+tries.efi":  content(2, 4096),
		"/EFI/Linux/walt-10.0_some long name+second.efi": content(3, 1),
		"/walt.hcl":                              []byte("hostname = \"x\"\n"),
		"/empty":                                 {},
		"/Ünïcode":                               content(4, 10),
		"/" + strings.Repeat("thirteen-unit", 2): content(5, 513), // fills its entries exactly
	}
	for i := range 200 { // a folder of several clusters
		files[fmt.Sprintf("/many/file-number-%d.text", i)] = content(byte(i), i)
	}
	tr := tree.New()
	for name, data := range files {
		if err := tr.Add(name, &tree.File{Mode: 0o644, Content: data}); err != nil {
			t.Fatal(err)
		}
	}
	if err := tr.Dir("/void", 0o755, 0, 0, "test"); err != nil {
		t.Fatal(err)
	}
	return tr, files
}

func TestWrite(t *testing.T) {
	tr, files := sample(t)
	// 64 MiB is where another writer got the size of its FAT wrong.
	for _, mib := range []int64{34, 40, 64, 96, 128, 256, 260, 512} {
		t.Run(fmt.Sprint(mib), func(t *testing.T) {
			name := filepath.Join(t.TempDir(), "esp")
			f, err := os.Create(name)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			v := Volume{Size: mib << 20, Label: "walt-esp", ID: 0x1234abcd, Time: time.Unix(1e9, 0), Hidden: 2048}
			if err := Write(f, v, tr); err != nil {
				t.Fatal(err)
			}
			if info, err := f.Stat(); err != nil || info.Size() != v.Size {
				t.Errorf("size %v, %v", info.Size(), err)
			}
			judge(t, name, files)
		})
	}
}

func judge(t *testing.T, image string, files map[string][]byte) {
	t.Helper()
	box := inputstest.Tools(t, "build")
	if out, err := box.Command(t.Context(), "fsck.vfat", "-n", "-v", image).CombinedOutput(); err != nil || strings.Contains(string(out), "wrong") {
		t.Errorf("fsck.vfat: %v\n%s", err, out)
	}
	dir := t.TempDir()
	cmd := box.Command(t.Context(), "mcopy", "-s", "-i", image, "::*", dir)
	cmd.Env = append(cmd.Environ(), "LC_ALL=C.UTF-8")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("mcopy: %v\n%s", err, out)
	}
	for name, want := range files {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, expected %d; %v", name, len(got), len(want), err)
		}
	}
	if info, err := os.Stat(filepath.Join(dir, "void")); err != nil || !info.IsDir() {
		t.Errorf("empty folder: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	with := func(names ...string) *tree.Tree {
		tr := tree.New()
		for _, name := range names {
			if err := tr.Add(name, &tree.File{Mode: 0o644, Content: make([]byte, 40<<20)}); err != nil {
				t.Fatal(err)
			}
		}
		return tr
	}
	link := tree.New()
	if err := link.Add("/link", &tree.File{Mode: fs.ModeSymlink, Target: "x"}); err != nil {
		t.Fatal(err)
	}
	good := Volume{Size: 64 << 20, Label: "ESP"}
	small, label := good, good
	small.Size, label.Label = 16<<20, "a/b"
	for name, c := range map[string]struct {
		v Volume
		t *tree.Tree
	}{
		"link":      {good, link},
		"same name": {good, with("/a", "/A")},
		"full":      {good, with("/a", "/b")},
		"bad name":  {good, with("/a:b")},
		"small":     {small, tree.New()},
		"label":     {label, tree.New()},
	} {
		f, err := os.Create(filepath.Join(t.TempDir(), "x"))
		if err != nil {
			t.Fatal(err)
		}
		if err := Write(f, c.v, c.t); err == nil {
			t.Errorf("%s: accepted", name)
		}
		f.Close()
	}
}

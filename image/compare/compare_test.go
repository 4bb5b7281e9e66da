package compare

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/waltos/waltos/image/cpio"
	"github.com/waltos/waltos/image/tree"
)

// noTools is for contents that no tool unpacks.
func noTools(ctx context.Context, _ string, _ ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "false")
}

func compareBytes(t *testing.T, a, b []byte) []string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string][]byte{"a": a, "b": b} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := &Comparer{Command: noTools, Scratch: dir}
	found, err := c.Files(t.Context(), "file", filepath.Join(dir, "a"), filepath.Join(dir, "b"))
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, d := range found {
		texts = append(texts, d.String())
	}
	return texts
}

func archive(t *testing.T, mtime int64, files map[string]*tree.File) []byte {
	t.Helper()
	tr := tree.New()
	for name, f := range files {
		if err := tr.Add(name, f); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	if err := cpio.Write(&out, tr, time.Unix(mtime, 0)); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func compressed(t *testing.T, content []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(content, nil)
}

func file(content string) *tree.File { return &tree.File{Mode: 0o644, Content: []byte(content)} }

func TestFiles(t *testing.T) {
	long := strings.Repeat("x", 100)
	for _, test := range []struct {
		name string
		a, b []byte
		want []string
	}{
		{"same", []byte("1"), []byte("1"), nil},
		{"text", []byte("one\ntwo\n"), []byte("one\nTwo\n"), []string{`file: line 2 is "two\n", in the second "Two\n"`}},
		{"text that ends", []byte("one\ntwo\n"), []byte("one\n"), []string{`file: line 2 is "two\n", in the second ""`}},
		{"long line", []byte(long + "1" + long), []byte(long + "2" + long), []string{
			`file: line 1 is "...` + long[:30] + "1" + long[:49] + `...", in the second "...` + long[:30] + "2" + long[:49] + `..."`}},
		{"bytes", []byte{0, 1, 2, 3}, []byte{0, 9, 2, 8}, []string{"file: byte 1 (0x1) is 0x01, in the second 0x09; 2 of 4 bytes differ"}},
		{"longer", []byte{0, 1}, []byte{0, 1, 2}, []string{"file: 2 bytes, in the second 3; what both have is the same"}},
		{"other and longer", []byte{0, 1}, []byte{0, 2, 2}, []string{"file: 2 bytes, in the second 3; the first difference is byte 1"}},
		{"archives",
			archive(t, 1e9, map[string]*tree.File{"/a": file("same"), "/b": file("old"), "/gone": file("")}),
			archive(t, 1e9, map[string]*tree.File{"/a": file("same"), "/b": file("new"), "/c": file("")}),
			[]string{
				`file: /b: line 1 is "old", in the second "new"`,
				"file: /c: only in the second (mode 100644 0:0 inode 4)",
				"file: /gone: only in the first (mode 100644 0:0 inode 4)",
			}},
		{"modes in an archive",
			archive(t, 1e9, map[string]*tree.File{"/l": {Mode: fs.ModeSymlink | 0o777, Target: "x"}, "/a": file("")}),
			archive(t, 1e9, map[string]*tree.File{"/l": {Mode: fs.ModeSymlink | 0o777, Target: "y"}, "/a": {Mode: 0o755, UID: 7}}),
			[]string{
				"file: /a: mode 100644 0:0 inode 2, in the second mode 100755 7:0 inode 2",
				"file: /l: mode 120777 0:0 inode 3 -> x, in the second mode 120777 0:0 inode 3 -> y",
			}},
		{"times in an archive",
			archive(t, 0, nil), archive(t, 1, nil),
			[]string{"file: /: time 1970-01-01T00:00:00Z, in the second 1970-01-01T00:00:01Z"}},
		{"compressed archives",
			compressed(t, archive(t, 1, map[string]*tree.File{"/a": file("1\n")})),
			compressed(t, archive(t, 1, map[string]*tree.File{"/a": file("2\n")})),
			[]string{`file: decompressed: /a: line 1 is "1\n", in the second "2\n"`}},
		{"damaged frame",
			compressed(t, []byte(long)), append(compressed(t, []byte(long))[:8], 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff),
			nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := compareBytes(t, test.a, test.b)
			if test.name == "damaged frame" {
				if len(got) == 0 || !strings.HasPrefix(got[0], "file: the second is damaged: cannot decompress") {
					t.Errorf("got %q", got)
				}
				return
			}
			if strings.Join(got, "\n") != strings.Join(test.want, "\n") {
				t.Errorf("got\n%s\nexpected\n%s", strings.Join(got, "\n"), strings.Join(test.want, "\n"))
			}
		})
	}
}

// Whatever two files hold, a difference is reported exactly when there is one.
func FuzzFiles(f *testing.F) {
	f.Add([]byte("MZ"), []byte("MZ\x00"))
	f.Add([]byte("070701"), []byte("070701ffffffff"))
	f.Add([]byte("\x28\xb5\x2f\xfd"), []byte("\x28\xb5\x2f\xfd\x00"))
	f.Add(bytes.Repeat([]byte("EFI PART"), 200), bytes.Repeat([]byte("EFI PART"), 201))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		if got := compareBytes(t, a, b); (len(got) == 0) != bytes.Equal(a, b) {
			t.Errorf("%q and %q: %q", a, b, got)
		}
	})
}

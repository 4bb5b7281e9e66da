package erofs

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/waltos/waltos/image/inputs/inputstest"
	"github.com/waltos/waltos/image/tree"
)

// sample is an image made by mkfs.erofs, of folders of one and of several blocks.
func sample(tb testing.TB) ([]byte, *tree.Tree, time.Time) {
	tb.Helper()
	box := inputstest.Tools(tb, "build")
	tr := tree.New()
	for name, f := range map[string]*tree.File{
		"/usr/bin/sudo": {Mode: 0o755 | fs.ModeSetuid, UID: 1, GID: 2, Content: bytes.Repeat([]byte("text"), 5000)},
		"/dev/console":  {Mode: fs.ModeDevice | fs.ModeCharDevice | 0o600, Device: [2]uint32{5, 1}},
		"/bin":          {Mode: fs.ModeSymlink | 0o777, Target: "usr/bin"},
		"/empty":        {Mode: 0o600, UID: 70000, GID: 80000},
		"/ping":         {Mode: 0o755, Content: []byte("x"), Xattrs: map[string]string{"security.capability": strings.Repeat("\x01", 20)}},
	} {
		if err := tr.Add(name, f); err != nil {
			tb.Fatal(err)
		}
	}
	for i := range 500 {
		if err := tr.Add(fmt.Sprintf("/many/%s-%d", strings.Repeat("n", i%200), i), &tree.File{Mode: 0o644}); err != nil {
			tb.Fatal(err)
		}
	}
	at := time.Unix(1_700_000_000, 0).UTC()
	name := filepath.Join(tb.TempDir(), "image")
	_, err := Write(tb.Context(), name, tr, Options{
		UUID: "6a2f0a4c-6b14-4e0c-8a5e-0f3a5c1c2d3e", Time: at,
		Command: func(ctx context.Context, arguments ...string) (*exec.Cmd, error) {
			return box.Command(ctx, "mkfs.erofs", arguments...), nil
		},
	})
	if err != nil {
		tb.Fatal(err)
	}
	content, err := os.ReadFile(name)
	if err != nil {
		tb.Fatal(err)
	}
	return content, tr, at
}

// List finds what mkfs.erofs has written, owners and modes included.
func TestList(t *testing.T) {
	image, tr, at := sample(t)
	var got, want []string
	err := List(bytes.NewReader(image), func(e Entry) error {
		if !e.Time.Equal(at) {
			t.Errorf("%s: time %v", e.Path, e.Time)
		}
		size := e.Size
		if !e.Mode.IsRegular() {
			size = 0
		}
		got = append(got, fmt.Sprintf("%s %v %d:%d %d %q", e.Path, e.Mode, e.UID, e.GID, size, e.Target))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	tr.Walk(func(name string, f *tree.File) error {
		want = append(want, fmt.Sprintf("%s %v %d:%d %d %q", name, f.Mode, f.UID, f.GID, len(f.Content), f.Target))
		return nil
	})
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nexpected\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if size, err := Size(bytes.NewReader(image)); err != nil || size != int64(len(image)) {
		t.Errorf("size %d, %v; the file has %d bytes", size, err, len(image))
	}
}

// A damaged image ends in an error or in another list, never in a crash.
func FuzzList(f *testing.F) {
	image, _, _ := sample(f)
	f.Add(1024, []byte{0})
	f.Add(1024+14, []byte{0xff, 0xff})
	f.Fuzz(func(t *testing.T, at int, with []byte) {
		damaged := bytes.Clone(image)
		if at < 0 || at > len(damaged) {
			return
		}
		copy(damaged[at:], with)
		List(bytes.NewReader(damaged), func(Entry) error { return nil })
		Size(bytes.NewReader(damaged))
	})
}

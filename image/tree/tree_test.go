package tree

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"strings"
	"testing"
	"time"
)

func file(content, origin string) *File {
	return &File{Mode: 0o644, Content: []byte(content), Origin: origin}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func merged(t *testing.T) *Tree {
	tr := New()
	must(t, tr.Dir("/usr/bin", 0o755, 0, 0, "test"))
	must(t, tr.Add("/bin", &File{Mode: fs.ModeSymlink | 0o777, Target: "usr/bin", Origin: "test"}))
	return tr
}

func TestMergedUsr(t *testing.T) {
	tr := merged(t)
	must(t, tr.Add("/bin/sh", file("shell", "dash")))
	must(t, tr.Add("/bin", &File{Mode: fs.ModeDir | 0o755, Origin: "old"}))
	f, err := tr.Get("/usr/bin/sh")
	must(t, err)
	if string(f.Content) != "shell" {
		t.Errorf("content %q", f.Content)
	}
	if tr.Find("/bin").Target != "usr/bin" {
		t.Error("the link /bin is gone")
	}
	tr.Remove("/bin/sh")
	if _, err := tr.Get("/usr/bin/sh"); !errors.Is(err, ErrNotFound) {
		t.Errorf("after Remove: %v", err)
	}
}

func TestLinksOutOfTree(t *testing.T) {
	tr := New()
	must(t, tr.Add("/a", &File{Mode: fs.ModeSymlink, Target: "../../../b"}))
	must(t, tr.Add("/b", file("b", "x")))
	f, err := tr.Get("/a")
	must(t, err)
	if string(f.Content) != "b" {
		t.Error("../ of the root is not the root")
	}
	must(t, tr.Add("/loop", &File{Mode: fs.ModeSymlink, Target: "loop"}))
	if _, err := tr.Get("/loop/x"); err == nil {
		t.Error("a loop of links was followed")
	}
}

func TestConflicts(t *testing.T) {
	tr := merged(t)
	must(t, tr.Add("/etc/one", file("1", "alpha")))
	must(t, tr.Add("/etc/one", file("1", "beta"))) // identical
	for name, add := range map[string]func() error{
		"content":        func() error { return tr.Add("/etc/one", file("2", "beta")) },
		"file as folder": func() error { return tr.Add("/etc/one/two", file("2", "beta")) },
		"folder":         func() error { return tr.Add("/etc", file("2", "beta")) },
	} {
		err := add()
		if err == nil || !strings.Contains(err.Error(), "beta") {
			t.Errorf("%s: error %v does not name the package", name, err)
		}
		if name == "content" && !strings.Contains(err.Error(), "alpha") {
			t.Errorf("%s: error %v does not name the other package", name, err)
		}
	}
	must(t, tr.Replace("/etc/one", file("2", "beta")))
	if err := tr.Replace("/etc", file("2", "beta")); err == nil {
		t.Error("a folder with content was replaced")
	}
}

func TestPatterns(t *testing.T) {
	p, err := NewPatterns([]string{"/usr/share/doc", "/lib/modules/*/kernel/sound", "/etc/*.d"})
	must(t, err)
	for name, want := range map[string]bool{
		"/usr/share/doc":                    true,
		"/usr/share/doc/x/y":                true,
		"/usr/share/docs":                   false,
		"/usr/share":                        false,
		"/lib/modules/6.1/kernel/sound/a.k": true,
		"/lib/modules/6.1/kernel/net/a.k":   false,
		"/etc/x.d/y":                        true,
		"/etc/x.conf":                       false,
	} {
		if p.Match(name) != want {
			t.Errorf("Match(%q) = %v", name, !want)
		}
	}
	for _, bad := range []string{"relative", "/[", ""} {
		if _, err := NewPatterns([]string{bad}); err == nil {
			t.Errorf("pattern %q was accepted", bad)
		}
	}
}

func TestTar(t *testing.T) {
	tr := merged(t)
	must(t, tr.Add("/usr/bin/tool", &File{Mode: fs.ModeSetuid | 0o755, UID: 7, GID: 8, Content: []byte("tool"),
		Xattrs: map[string]string{"security.capability": "\x01\x00\x00"}}))
	must(t, tr.Link("/usr/bin/alias", "/bin/tool", "test"))
	must(t, tr.Add("/dev/null", &File{Mode: fs.ModeDevice | fs.ModeCharDevice | 0o666, Device: [2]uint32{1, 3}}))
	must(t, tr.Add("/tmp", &File{Mode: fs.ModeDir | fs.ModeSticky | 0o777}))
	must(t, tr.Add("/"+strings.Repeat("long/", 60)+"name", file("x", "x")))
	var out bytes.Buffer
	must(t, tr.WriteTar(&out, time.Unix(1, 0)))

	again := New()
	must(t, again.AddArchive(tar.NewReader(bytes.NewReader(out.Bytes())), "copy", func(string) bool { return true }))
	var second bytes.Buffer
	must(t, again.WriteTar(&second, time.Unix(1, 0)))
	if !bytes.Equal(out.Bytes(), second.Bytes()) {
		t.Error("a tree read from its own archive is another tree")
	}
	tool, err := again.Get("/bin/tool")
	must(t, err)
	if tool.UID != 7 || tool.StatMode() != 0o104755 || tool.Xattrs["security.capability"] != "\x01\x00\x00" {
		t.Errorf("tool is %+v", tool)
	}
	if alias, _ := again.Get("/bin/alias"); alias != tool {
		t.Error("the hard link is gone")
	}

	filtered := New()
	must(t, filtered.AddArchive(tar.NewReader(bytes.NewReader(out.Bytes())), "copy", func(name string) bool { return name != "/usr/bin/alias" }))
	if filtered.Find("/bin/tool") != nil {
		t.Error("a link to a file that was dropped was kept")
	}
}

func TestDedupe(t *testing.T) {
	tr := New()
	must(t, tr.Add("/a", file("content", "x")))
	must(t, tr.Add("/b/c", file("content", "y")))
	other := file("content", "z")
	other.UID = 1
	must(t, tr.Add("/d", other))
	if saved := tr.Dedupe(1); saved != 7 {
		t.Errorf("saved %d bytes, expected 7", saved)
	}
	if tr.Find("/a") != tr.Find("/b/c") || tr.Find("/a") == tr.Find("/d") {
		t.Error("wrong files were joined")
	}
	if tr.Size() != 14 {
		t.Errorf("size %d, expected 14", tr.Size())
	}
}

func TestGraft(t *testing.T) {
	tr, other := merged(t), New()
	must(t, other.Add("/x/y", file("y", "other")))
	must(t, tr.Graft("/usr/lib/store", other))
	f, err := tr.Get("/usr/lib/store/x/y")
	must(t, err)
	if string(f.Content) != "y" {
		t.Errorf("content %q", f.Content)
	}
}

// Whatever an archive holds, it makes a tree that can be written, or an error.
func FuzzAddArchive(f *testing.F) {
	tr := New()
	for name, file := range map[string]*File{
		"/bin/tool": {Mode: 0o755, Content: []byte("tool")}, "/link": {Mode: fs.ModeSymlink | 0o777, Target: "bin/../bin"},
		"/dev/null": {Mode: fs.ModeDevice | fs.ModeCharDevice | 0o666, Device: [2]uint32{1, 3}},
	} {
		if err := tr.Add(name, file); err != nil {
			f.Fatal(err)
		}
	}
	if err := tr.Link("/alias", "/bin/tool", "test"); err != nil {
		f.Fatal(err)
	}
	var good bytes.Buffer
	if err := tr.WriteTar(&good, time.Unix(1, 0)); err != nil {
		f.Fatal(err)
	}
	f.Add(good.Bytes())
	var huge bytes.Buffer
	if err := tar.NewWriter(&huge).WriteHeader(&tar.Header{Name: "huge", Typeflag: tar.TypeReg, Size: 1 << 62}); err != nil {
		f.Fatal(err)
	}
	f.Add(huge.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		tr := New()
		if err := tr.AddArchive(tar.NewReader(bytes.NewReader(data)), "fuzz", func(string) bool { return true }); err != nil {
			return
		}
		if err := tr.WriteTar(io.Discard, time.Unix(1, 0)); err != nil && !errors.Is(err, tar.ErrHeader) {
			t.Errorf("read but not written: %v", err)
		}
	})
}

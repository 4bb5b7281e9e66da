package archive

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestRename(t *testing.T) {
	at := time.Unix(1700000000, 500_000_000)
	long := strings.Repeat("long/", 50) + "name"
	pack := func(headers ...tar.Header) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range headers {
			h.ModTime, h.Mode, h.Format = at, 0o644, tar.FormatPAX
			if h.Typeflag == tar.TypeReg {
				h.Size = 4
			}
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
			if h.Size > 0 {
				io.WriteString(w, "text")
			}
		}
		w.Close()
		return b.Bytes()
	}
	file := func(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name} }
	folder := func(name string) tar.Header { return tar.Header{Typeflag: tar.TypeDir, Name: name} }
	for _, test := range []struct {
		what    string
		archive []byte
		want    string // names, blank, or what the error says
		fails   bool
	}{
		{"a file", pack(file("x")), "new", false},
		{"a file in a folder", pack(file("./x")), "new", false},
		{"a tree", pack(folder("./"), folder("./a/"), file("./a/f"), file("./"+long)), "new/ new/a/ new/a/f new/" + long, false},
		{"a named tree", pack(folder("d"), file("d/f"), tar.Header{Typeflag: tar.TypeLink, Name: "d/l", Linkname: "d/f"}), "new/ new/d new/l>new/f", false},
		{"a symbolic link", pack(folder("d"), tar.Header{Typeflag: tar.TypeSymlink, Name: "d/l", Linkname: "../../x"}), "new/ new/l>../../x", false},
		{"empty", pack(), "it is empty", true},
		{"cut", pack(file("x"))[:1500], "unexpected EOF", true},
		{"no archive", []byte(strings.Repeat("no archive ", 100)), "invalid tar header", true},
		{"a member beside", pack(folder("d"), file("e")), `"e" is not below "d"`, true},
		{"a member above", pack(folder("."), file("../e")), `"../e" is not below "."`, true},
		{"a member of another name", pack(file("d"), file("de")), `"de" is not below "d"`, true},
		{"an absolute member", pack(folder("."), file("/etc/passwd")), `"/etc/passwd" is not below "."`, true},
		{"an absolute top", pack(file("/etc/passwd")), `"/etc/passwd" is not a name`, true},
		{"a top above", pack(file("../x")), `"../x" is not a name`, true},
		{"a link to a file beside", pack(folder("d"), tar.Header{Typeflag: tar.TypeLink, Name: "d/l", Linkname: "/etc/shadow"}), `"/etc/shadow" is not below "d"`, true},
	} {
		for _, form := range []Form{Common, Full} {
			var out bytes.Buffer
			err := Rename(&out, bytes.NewReader(test.archive), "new", form)
			if test.fails {
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("%s: error %v, want %q", test.what, err, test.want)
				}
				continue
			}
			if err != nil || End(&out) != nil {
				t.Errorf("%s: %v", test.what, err)
			}
			want := strings.Replace(test.want, "new/d new", "new/f new", 1)
			if got := names(t, &out); got != want {
				t.Errorf("%s: %s, want %s", test.what, got, want)
			}
		}
	}
}

func names(t *testing.T, r io.Reader) string {
	var all []string
	for in := tar.NewReader(r); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return strings.Join(all, " ")
		}
		if err != nil {
			t.Fatal(err)
		}
		name := h.Name
		if h.Linkname != "" {
			name += ">" + h.Linkname
		}
		all = append(all, name)
		if text, err := io.ReadAll(in); h.Typeflag == tar.TypeReg && (string(text) != "text" || err != nil) {
			t.Errorf("%s holds %q, %v", h.Name, text, err)
		}
	}
}

// What this machine's tar writes, sparse files and all, it reads back under another name.
func TestRenameOfTar(t *testing.T) {
	if _, err := exec.LookPath("tar"); err != nil {
		t.Skip("there is no tar on this machine")
	}
	from, to := t.TempDir(), t.TempDir()
	sparse, err := os.Create(filepath.Join(from, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	sparse.WriteAt([]byte("end"), 1<<20)
	sparse.Close()
	os.WriteFile(filepath.Join(from, strings.Repeat("n", 200)), []byte("text"), 0o600)
	os.Link(filepath.Join(from, "sparse"), filepath.Join(from, "zlink"))
	for _, options := range []string{"-S", "--format=pax", "--format=ustar", "--format=gnu"} {
		make := exec.Command("tar", "-C", from, options, "-c", "-f", "-", ".")
		archive, err := make.Output()
		if err != nil && options != "--format=ustar" { // which has no room for such names
			t.Fatal(err)
		}
		for _, form := range []Form{Common, Full} {
			var out bytes.Buffer
			if err := Rename(&out, bytes.NewReader(archive), "new name", form); err != nil {
				t.Fatalf("%s: %v", options, err)
			}
			End(&out)
			read := exec.Command("tar", "-C", to, "-x", "-f", "-")
			read.Stdin = &out
			if said, err := read.CombinedOutput(); err != nil {
				t.Fatalf("%s: %v\n%s", options, err, said)
			}
			if text, err := os.ReadFile(filepath.Join(to, "new name", "zlink")); err != nil || len(text) != 1<<20+3 || !strings.HasSuffix(string(text), "\x00end") {
				t.Errorf("%s: %d bytes, %v", options, len(text), err)
			}
			os.RemoveAll(filepath.Join(to, "new name"))
		}
	}
}

// limited fails when more is written.
type limited struct {
	io.Writer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	if l.left -= len(p); l.left < 0 {
		return 0, io.ErrShortWrite
	}
	return l.Writer.Write(p)
}

// FuzzRename checks that nothing is written above the wanted name.
func FuzzRename(f *testing.F) {
	for _, name := range []string{"x", "./x", "../x", "/x", "a/../../x", ""} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "a/", Mode: 0o755})
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: 1})
		io.WriteString(w, "1")
		w.Close()
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, archive []byte) {
		for _, form := range []Form{Common, Full} {
			var out bytes.Buffer
			// Holes of sparse files are written out: a small archive may make a large one.
			_ = Rename(&limited{&out, 1 << 20}, bytes.NewReader(archive), "new", form)
			for in := tar.NewReader(&out); ; {
				h, err := in.Next()
				if err != nil {
					break
				}
				if name := strings.TrimSuffix(h.Name, "/"); name != "new" && !strings.HasPrefix(name, "new/") || strings.Contains("/"+name+"/", "/../") {
					t.Fatalf("member %q", h.Name)
				}
			}
		}
	})
}

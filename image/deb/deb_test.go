package deb

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// tarball packs headers; a regular file holds its own name.
func tarball(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(h.Name))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			io.WriteString(w, h.Name)
		}
	}
	w.Close()
	return b.Bytes()
}

func compress(t testing.TB, suffix string, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	var err error
	switch suffix {
	case "":
		return data
	case ".gz":
		w = gzip.NewWriter(&b)
	case ".xz":
		w, err = xz.NewWriter(&b)
	case ".zst":
		w, err = zstd.NewWriter(&b)
	}
	if err != nil {
		t.Fatal(err)
	}
	w.Write(data)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func ar(members ...[2]string) []byte {
	b := bytes.NewBufferString("!<arch>\n")
	for _, m := range members {
		fmt.Fprintf(b, "%-16s%-12d%-6d%-6d%-8s%-10d`\n%s", m[0], 0, 0, 0, "100644", len(m[1]), m[1])
		if len(m[1])%2 == 1 {
			b.WriteByte('\n')
		}
	}
	return b.Bytes()
}

func build(t testing.TB, suffix string, headers ...tar.Header) []byte {
	control := tarball(t, tar.Header{Name: "./control", Typeflag: tar.TypeReg, Mode: 0o644})
	return ar([2]string{"debian-binary", "2.0\n"},
		[2]string{"control.tar" + suffix, string(compress(t, suffix, control))},
		[2]string{"data.tar" + suffix, string(compress(t, suffix, tarball(t, headers...)))})
}

func list(d *Data) (string, error) {
	var lines []string
	for {
		h, err := d.Next()
		if errors.Is(err, io.EOF) {
			return strings.Join(lines, "\n"), nil
		}
		if err != nil {
			return "", err
		}
		body, err := io.ReadAll(d)
		if err != nil {
			return "", err
		}
		lines = append(lines, fmt.Sprintf("%c %s %s %s", h.Typeflag, h.Name, h.Linkname, body))
	}
}

func TestCompressions(t *testing.T) {
	for _, suffix := range []string{"", ".gz", ".xz", ".zst"} {
		t.Run("tar"+suffix, func(t *testing.T) {
			raw := build(t, suffix,
				tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755},
				tar.Header{Name: "./usr/bin/a", Typeflag: tar.TypeReg, Mode: 0o755},
				tar.Header{Name: "./usr/bin/b", Typeflag: tar.TypeLink, Linkname: "./usr/bin/a"},
				tar.Header{Name: "./usr/bin/c", Typeflag: tar.TypeSymlink, Linkname: "../../etc/a"})
			want := "5 .  \n0 usr/bin/a  ./usr/bin/a\n1 usr/bin/b usr/bin/a \n2 usr/bin/c ../../etc/a "

			p, err := Open(bytes.NewReader(raw))
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			if got := string(p.Control["control"]); got != "./control" {
				t.Errorf("control holds %q", got)
			}
			if got, err := list(p.Data()); err != nil || got != want {
				t.Errorf("got %q, %v; want %q", got, err, want)
			}

			again, err := Open(bytes.NewReader(raw))
			if err != nil {
				t.Fatal(err)
			}
			defer again.Close()
			var b bytes.Buffer
			if err := WriteCopy(context.Background(), &b, again); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "copy")
			if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
			d, err := OpenCopy(file)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			if got, err := list(d); err != nil || got != want {
				t.Errorf("copy: got %q, %v; want %q", got, err, want)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	reg := func(name string) []byte {
		return build(t, ".gz", tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644})
	}
	bigXZ := compress(t, ".xz", tarball(t))
	bigXZ[bytes.Index(bigXZ, []byte{0x21, 0x01})+2] = 38
	for name, c := range map[string]struct {
		raw  []byte
		want string
	}{
		"parent":     {reg("../etc/passwd"), "leaves the tree"},
		"inner":      {reg("./usr/../../etc/passwd"), "leaves the tree"},
		"hard link":  {build(t, "", tar.Header{Name: "a", Typeflag: tar.TypeLink, Linkname: "../b"}), "leaves the tree"},
		"empty link": {build(t, "", tar.Header{Name: "a", Typeflag: tar.TypeSymlink}), "bad link target"},
		"not ar":     {[]byte("hello, this is no archive"), "not an ar archive"},
		"truncated":  {reg("a")[:100], "cannot read"},
		"no control": {ar([2]string{"debian-binary", "2.0\n"}, [2]string{"data.tar", ""}), "not control.tar"},
		"old format": {ar([2]string{"debian-binary", "0.9\n"}), "want 2.0"},
		"lzma":       {ar([2]string{"debian-binary", "2.0\n"}, [2]string{"control.tar.lzma", ""}), "not known"},
		"dictionary": {ar([2]string{"debian-binary", "2.0\n"}, [2]string{"control.tar.xz", string(bigXZ)}), "dictionary"},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := Open(bytes.NewReader(c.raw))
			if err == nil {
				defer p.Close()
				_, err = list(p.Data())
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got error %v, want %q in it", err, c.want)
			}
		})
	}
}

// TestAgainstDpkg compares with the real reader.
func TestAgainstDpkg(t *testing.T) {
	dpkg, err := exec.LookPath("dpkg-deb")
	if err != nil {
		t.Skip("dpkg-deb is not on this machine")
	}
	root := t.TempDir()
	for name, content := range map[string]string{
		"DEBIAN/control": "Package: probe\nVersion: 1\nArchitecture: all\nMaintainer: A <a@b.c>\nDescription: probe\n",
		"usr/bin/tool":   strings.Repeat("x", 100_000), "usr/share/doc/" + strings.Repeat("long", 40) + "/x": "y",
	} {
		os.MkdirAll(filepath.Join(root, filepath.Dir(name)), 0o755)
		if err := os.WriteFile(filepath.Join(root, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(t.TempDir(), "probe.deb")
	if out, err := exec.Command(dpkg, "--root-owner-group", "-b", root, file).CombinedOutput(); err != nil {
		t.Fatalf("dpkg-deb: %v\n%s", err, out)
	}
	out, err := exec.Command("sh", "-c", dpkg+" --fsys-tarfile "+file+" | tar t").Output()
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for name := range strings.Lines(string(out)) {
		clean, err := cleanPath(strings.TrimSpace(name))
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, clean)
	}
	d, err := OpenData(file)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var got []string
	for {
		h, err := d.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, h.Name)
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%q\nwant\n%q", got, want)
	}
}

func FuzzOpen(f *testing.F) {
	for _, suffix := range []string{"", ".gz", ".xz", ".zst"} {
		f.Add(build(f, suffix, tar.Header{Name: "./usr/bin/a", Typeflag: tar.TypeReg}))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := Open(bytes.NewReader(raw))
		if err != nil {
			return
		}
		defer p.Close()
		d := NewData(&bounded{p.data, 1 << 20})
		for {
			h, err := d.Next()
			if err != nil {
				return
			}
			if filepath.IsAbs(h.Name) || strings.HasPrefix(h.Name, "..") {
				t.Fatalf("name %q leaves the tree", h.Name)
			}
		}
	})
}

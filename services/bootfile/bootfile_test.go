package bootfile

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// image makes an image with a boot directory, and a secret beside the image.
func image(t testing.TB) (root, dir string) {
	top := t.TempDir()
	root = filepath.Join(top, "fs")
	dir = filepath.Join(root, "boot/pc-x86-64")
	write(t, filepath.Join(top, "secret"), "secret of the server")
	write(t, filepath.Join(dir, "kernel"), "kernel")
	write(t, filepath.Join(dir, "QEMU/Standard PC (i440FX + PIIX, 1996)/boot-params.ipxe"), "params")
	write(t, filepath.Join(root, "vmlinuz-6.12"), "linux")
	write(t, filepath.Join(root, "etc/passwd"), "passwd of the image")
	for link, target := range map[string]string{
		"absolute":  "/vmlinuz-6.12",
		"relative":  "../../vmlinuz-6.12",
		"passwd":    "/etc/passwd",
		"above":     "../../../../../../../../secret",
		"outside":   filepath.Join(top, "secret"),
		"loop":      "loop",
		"directory": "/etc",
		"proc":      "/proc/self/root/etc/passwd",
	} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	return root, dir
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestOpen(t *testing.T) {
	root, dir := image(t)
	for _, c := range []struct {
		name string
		text string
		err  error
	}{
		{name: "kernel", text: "kernel"},
		{name: "/kernel", text: "kernel"},
		{name: "//kernel", text: "kernel"},
		{name: "./QEMU/../kernel", text: "kernel"},
		{name: "QEMU/Standard PC (i440FX + PIIX, 1996)/boot-params.ipxe", text: "params"},
		{name: "absolute", text: "linux"},
		{name: "relative", text: "linux"},
		{name: "passwd", text: "passwd of the image"},
		{name: "directory/passwd", text: "passwd of the image"},
		{name: "directory/../kernel", text: "kernel"},
		{name: "missing", err: fs.ErrNotExist},
		{name: "kernel/x", err: unix.ENOTDIR},
		{name: "", err: ErrNotRegular},
		{name: ".", err: ErrNotRegular},
		{name: "QEMU", err: ErrNotRegular},
		{name: "directory", err: ErrNotRegular},
		{name: "pipe", err: ErrNotRegular},
		{name: "loop", err: unix.ELOOP},
		{name: "..", err: ErrEscape},
		{name: "../pc-x86-64/kernel", err: ErrEscape},
		{name: "/../../vmlinuz-6.12", err: ErrEscape},
		{name: "QEMU/../../../vmlinuz-6.12", err: ErrEscape},
		{name: "above", err: fs.ErrNotExist},
		{name: "outside", err: fs.ErrNotExist},
		{name: "proc", err: fs.ErrNotExist},
		{name: "a\x00b", err: fs.ErrInvalid},
		{name: strings.Repeat("a/", 4000), err: fs.ErrInvalid},
	} {
		f, info, err := Open(root, dir, c.name)
		if c.err != nil {
			if !errors.Is(err, c.err) {
				t.Errorf("Open(%.40q): error %v, want %v", c.name, err, c.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("Open(%q): %v", c.name, err)
			continue
		}
		text, err := io.ReadAll(f)
		f.Close()
		if err != nil || string(text) != c.text || info.Size() != int64(len(c.text)) {
			t.Errorf("Open(%q) holds %q of size %d (%v), want %q", c.name, text, info.Size(), err, c.text)
		}
	}
}

func TestOpenRefusesForeignDirectory(t *testing.T) {
	root, _ := image(t)
	if _, _, err := Open(root, filepath.Dir(root), "secret"); err == nil {
		t.Error("a boot directory above the image was accepted")
	}
}

// FuzzOpen checks that no name reads a file of the server.
func FuzzOpen(f *testing.F) {
	for _, name := range []string{"kernel", "../secret", "outside", "above/../x", "directory/../../secret", "/%2e%2e"} {
		f.Add(name)
	}
	root, dir := image(f)
	f.Fuzz(func(t *testing.T, name string) {
		file, _, err := Open(root, dir, name)
		if err != nil {
			return
		}
		defer file.Close()
		text, err := io.ReadAll(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "secret") {
			t.Fatalf("%q reads the secret", name)
		}
	})
}

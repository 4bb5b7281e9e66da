package images

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vbatts/tar-split/tar/asm"
	"github.com/vbatts/tar-split/tar/storage"
	"golang.org/x/sys/unix"
)

var written = time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)

// archive makes an archive; the content of a regular file is its PAX record "content".
func archive(t testing.TB, entries ...tar.Header) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, h := range entries {
		content := h.PAXRecords["TEST.content"]
		h.PAXRecords = maps.Clone(h.PAXRecords)
		delete(h.PAXRecords, "TEST.content")
		h.Size, h.ModTime, h.Format = int64(len(content)), written, tar.FormatPAX
		must(t, w.WriteHeader(&h))
		_, err := io.WriteString(w, content)
		must(t, err)
	}
	must(t, w.Close())
	return out.Bytes()
}

func file(name, content string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, PAXRecords: map[string]string{"TEST.content": content}}
}

func folder(name string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755}
}

func symlink(name, target string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: target, Mode: 0o777}
}

// source describes an image of archives.
func source(t testing.TB, archives ...[]byte) Source {
	t.Helper()
	var diffs []string
	layers := []map[string]any{}
	for _, a := range archives {
		diffs = append(diffs, "sha256:"+hexSum(a))
		layers = append(layers, map[string]any{"digest": "sha256:" + hexSum(a), "size": len(a)})
	}
	config, err := json.Marshal(map[string]any{
		"created": written, "config": map[string]any{"Labels": map[string]string{modelsLabel: "pc-x86-64"}}, "rootfs": map[string]any{"diff_ids": diffs},
	})
	must(t, err)
	manifest, err := json.Marshal(map[string]any{"schemaVersion": 2, "config": map[string]any{"digest": "sha256:" + hexSum(config)}, "layers": layers})
	must(t, err)
	return Source{Manifest: manifest, Config: config, Layer: func(_ context.Context, n int) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(archives[n])), nil
	}}
}

// requireRoot skips what makes files of other owners.
func requireRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("skipped: to unpack layers needs root")
	}
}

// expectClean fails if anything is left of an image that was not added.
func expectClean(t *testing.T, c Config, m *Manager, name string) {
	t.Helper()
	if _, there := m.ByName(name); there {
		t.Errorf("there is an image %s", name)
	}
	left, err := filepath.Glob(filepath.Join(c.Store, "overlay", "*"))
	must(t, err)
	if left = slices.DeleteFunc(left, func(p string) bool { return filepath.Base(p) == "l" }); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// TestAdd adds images that share layers, and looks at them through a mount.
func TestAdd(t *testing.T) {
	requireRoot(t)
	if !inNamespace(t) {
		return
	}
	requireOverlay(t)
	c, _ := site(t)
	m := open(t, c)
	ctx := t.Context()
	owned := file("etc/owned", "x")
	owned.Uid, owned.Gid, owned.Mode = 1000, 1001, 0o4750
	owned.PAXRecords["SCHILY.xattr.user.note"] = "kept"
	owned.PAXRecords["SCHILY.xattr.trusted.overlay.redirect"] = "/etc"
	base := archive(t, folder("./"), folder("etc/"), folder("dir"), file("dir/a", "a"), file("dir/b", "b"), file("gone", "gone"), owned,
		tar.Header{Name: "same", Typeflag: tar.TypeLink, Linkname: "gone"}, symlink("etc/link", "/dir"),
		tar.Header{Name: "dev/null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3, Mode: 0o666}, tar.Header{Name: "pipe", Typeflag: tar.TypeFifo, Mode: 0o600})
	top := archive(t, file(".wh.gone", ""), folder("dir"), file("dir/.wh..wh..opq", ""), file("dir/c", "c"), file("etc/motd", "new"), file("etc/motd2", "new"))
	must(t, m.Add(ctx, "u/base:latest", source(t, base)))
	opened := 0
	counting := source(t, base, top)
	layer := counting.Layer
	counting.Layer = func(ctx context.Context, n int) (io.ReadCloser, error) { opened++; return layer(ctx, n) }
	must(t, m.Add(ctx, "u/top:v1", counting))
	if opened != 1 {
		t.Errorf("%d layers were opened, one is new", opened)
	}
	i, there := m.ByName("u/top:v1")
	if !there || i.Layers != 2 || !i.Created.Equal(written) || !slices.Equal(i.Models, []string{"pc-x86-64"}) {
		t.Fatalf("%+v, %v", i, there)
	}
	e := m.catalog.Load().images[i.ID]
	dir := t.TempDir()
	for _, name := range []string{"upper", "work", "fs"} {
		must(t, os.Mkdir(filepath.Join(dir, name), 0o755))
	}
	point := filepath.Join(dir, "fs")
	must(t, mountOverlay("test", e.lower, filepath.Join(dir, "upper"), filepath.Join(dir, "work"), point))
	defer syscall.Unmount(point, 0)
	for name, want := range map[string]string{"dir/c": "c", "etc/motd": "new", "same": "gone", "etc/owned": "x"} {
		if text, err := os.ReadFile(filepath.Join(point, name)); err != nil || string(text) != want {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
	for _, name := range []string{"gone", "dir/a", "dir/b"} {
		if _, err := os.Lstat(filepath.Join(point, name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var stat unix.Stat_t
	must(t, unix.Lstat(filepath.Join(point, "etc/owned"), &stat))
	if stat.Uid != 1000 || stat.Gid != 1001 || stat.Mode&0o7777 != 0o4750 || stat.Mtim.Sec != written.Unix() {
		t.Errorf("etc/owned: %+v", stat)
	}
	note := make([]byte, 10)
	if n, err := unix.Lgetxattr(filepath.Join(point, "etc/owned"), "user.note", note); err != nil || string(note[:n]) != "kept" {
		t.Errorf("attribute: %q, %v", note, err)
	}
	must(t, unix.Lstat(filepath.Join(point, "dev/null"), &stat))
	if stat.Rdev != unix.Mkdev(1, 3) {
		t.Errorf("dev/null is %x", stat.Rdev)
	}
	must(t, unix.Lstat(filepath.Join(point, "dir"), &stat))
	if stat.Mtim.Sec != written.Unix() {
		t.Error("a folder has the time of its unpacking")
	}
	must(t, syscall.Unmount(point, 0))

	// What is kept gives the archive back.
	split, err := os.ReadFile(filepath.Join(c.Store, "overlay-layers", hexSum(base)+".tar-split.gz"))
	must(t, err)
	unzipped, err := gzip.NewReader(bytes.NewReader(split))
	must(t, err)
	again, err := io.ReadAll(asm.NewOutputTarStream(storage.NewPathFileGetter(filepath.Join(c.Store, "overlay", hexSum(base), "diff")), storage.NewJSONUnpacker(unzipped)))
	if err != nil || !bytes.Equal(again, base) {
		t.Errorf("the archive is not given back: %v", err)
	}
	if lower, err := os.ReadFile(filepath.Join(filepath.Dir(e.lower[0]), "lower")); err != nil || !strings.HasPrefix(string(lower), "l/") {
		t.Errorf("lower: %q, %v", lower, err)
	}

	// A name that moves to a new image takes the old one away, with the layers that
	// nobody else needs.
	must(t, m.Add(ctx, "u/top:v1", source(t, base, archive(t, file("other", "other")))))
	if _, there := m.ByID(i.ID); there {
		t.Error("the image without name is still there")
	}
	if _, err := os.Stat(e.lower[0]); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its layer: %v", err)
	}
	if _, err := os.Stat(e.lower[1]); err != nil {
		t.Errorf("the layer of another: %v", err)
	}
	// The same again changes nothing.
	must(t, m.Add(ctx, "u/base:latest", source(t, base)))
	if len(open(t, c).List()) != 3 { // with the one that is shipped
		t.Errorf("images: %+v", m.List())
	}
}

// TestAddBadImages: nothing is left of what is not an image, nothing is written elsewhere.
func TestAddBadImages(t *testing.T) {
	requireRoot(t)
	c, _ := site(t)
	m := open(t, c)
	outside := filepath.Join(filepath.Dir(c.Store), "outside")
	must(t, os.Mkdir(outside, 0o755))
	good := archive(t, file("a", "a"))
	for name, bad := range map[string][]byte{
		"above":            archive(t, file("../../../outside/x", "x")),
		"through a link":   archive(t, symlink("out", outside), file("out/x", "x")),
		"through a way up": archive(t, symlink("out", "../../../../outside"), file("out/x", "x")),
		"link above":       archive(t, tar.Header{Name: "x", Typeflag: tar.TypeLink, Linkname: "../../outside"}),
		"link to a link":   archive(t, symlink("out", outside), tar.Header{Name: "x", Typeflag: tar.TypeLink, Linkname: "out/x"}),
		"deletes above":    archive(t, folder("d"), file("d/.wh...", "")),
		"deletes itself":   archive(t, folder("d"), file("d/.wh..", "")),
		"whiteout device":  archive(t, tar.Header{Name: "x", Typeflag: tar.TypeChar}),
		"root is a file":   archive(t, tar.Header{Name: "/", Typeflag: tar.TypeSymlink, Linkname: outside}),
		"cut off":          good[:400],
		"garbage":          []byte(strings.Repeat("garbage", 1000)),
	} {
		if err := m.Add(t.Context(), "u/bad:latest", source(t, good, bad)); err == nil {
			t.Errorf("%s is added", name)
		}
		expectClean(t, c, m, "u/bad:latest")
		if found, _ := os.ReadDir(outside); len(found) != 0 {
			t.Fatalf("%s wrote outside", name)
		}
	}
	other := source(t, good)
	other.Layer = func(context.Context, int) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(archive(t, file("b", "b")))), nil
	}
	if err := m.Add(t.Context(), "u/bad:latest", other); err == nil || !strings.Contains(err.Error(), "its digest is") {
		t.Errorf("another layer: %v", err)
	}
	expectClean(t, c, m, "u/bad:latest")
}

func TestParts(t *testing.T) {
	good := source(t, archive(t, file("a", "a")))
	for name, s := range map[string]Source{
		"no manifest":   {Manifest: nil, Config: good.Config},
		"no config":     {Manifest: good.Manifest, Config: []byte("{")},
		"other config":  {Manifest: good.Manifest, Config: append([]byte(" "), good.Config...)},
		"no layer":      source(t),
		"no WalT image": {Manifest: []byte(strings.ReplaceAll(string(good.Manifest), hexSum(good.Config), hexSum([]byte("{}")))), Config: []byte("{}")},
	} {
		if _, err := parseParts(s.Manifest, s.Config); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestAddEndsWithItsCaller: a download that is given up leaves nothing.
func TestAddEndsWithItsCaller(t *testing.T) {
	c, _ := site(t)
	m := open(t, c)
	ctx, cancel := context.WithCancel(t.Context())
	s := source(t, archive(t, file("a", "a")))
	s.Layer = func(ctx context.Context, _ int) (io.ReadCloser, error) {
		from, to := io.Pipe()
		go func() {
			to.Write(make([]byte, 100)) // the beginning of an entry
			cancel()
			<-ctx.Done()
			to.CloseWithError(ctx.Err())
		}()
		return from, nil
	}
	if err := m.Add(ctx, "u/a:latest", s); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	expectClean(t, c, m, "u/a:latest")
}

// TestAddToAFullDisk: it is an error, and the store goes on.
func TestAddToAFullDisk(t *testing.T) {
	requireRoot(t)
	if !inNamespace(t) {
		return
	}
	c, _ := site(t)
	must(t, os.MkdirAll(c.Store, 0o755))
	must(t, unix.Mount("tmpfs", c.Store, "tmpfs", 0, "size=256k"))
	m := open(t, c)
	if err := m.Add(t.Context(), "u/large:latest", source(t, archive(t, file("a", strings.Repeat("a", 1<<20))))); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("got %v", err)
	}
	expectClean(t, c, m, "u/large:latest")
	must(t, m.Add(t.Context(), "u/small:latest", source(t, archive(t, file("a", "a")))))
	must(t, unix.Unmount(c.Store, unix.MNT_DETACH))
}

func FuzzUnpack(f *testing.F) {
	f.Add(archive(f, folder("d"), file("d/a", "a"), symlink("d/l", "/"), file("d/.wh.a", ""), tar.Header{Name: "h", Typeflag: tar.TypeLink, Linkname: "d/l"}))
	f.Add(archive(f, symlink("out", ".."), file("out/x", "x")))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		diff := filepath.Join(dir, "diff")
		must(t, os.Mkdir(diff, 0o755))
		u, err := newUnpacking(diff)
		must(t, err)
		defer u.close()
		_ = u.unpack(bytes.NewReader(data))
		must(t, os.Chmod(diff, 0o755))
		if found, _ := os.ReadDir(dir); len(found) != 1 {
			t.Errorf("something else than the folder is there: %v", found)
		}
	})
}

func FuzzParts(f *testing.F) {
	s := source(f, archive(f, file("a", "a")))
	f.Add(s.Manifest, s.Config)
	f.Fuzz(func(t *testing.T, manifest, config []byte) {
		p, err := parseParts(manifest, config)
		if err != nil {
			return
		}
		for _, l := range p.layers {
			if !digestHex().MatchString(l.id) {
				t.Errorf("layer %q", l.id)
			}
		}
	})
}

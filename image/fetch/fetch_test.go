package fetch

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func newFetcher(t *testing.T, mirror string) *Fetcher {
	t.Helper()
	cache, err := OpenCache(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return &Fetcher{Cache: cache, Mirror: Mirror{mirror, mirror}, Snapshot: "none", Pause: time.Millisecond}
}

func fileOf(path, content string) File {
	sum := sha256.Sum256([]byte(content))
	return File{Label: path, Archive: Debian, Path: path, Size: int64(len(content)), SHA256: hex.EncodeToString(sum[:])}
}

// server answers from a handler and counts requests.
func server(t *testing.T, h http.HandlerFunc) (*httptest.Server, *atomic.Int64) {
	t.Helper()
	count := &atomic.Int64{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		count.Add(1)
		h(w, r)
	}))
	t.Cleanup(s.Close)
	return s, count
}

func holds(files map[string]string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		content, there := files[r.URL.Path]
		if !there {
			http.NotFound(w, r)
			return
		}
		io.WriteString(w, content)
	}
}

func (f *Fetcher) content(t *testing.T, file File) string {
	t.Helper()
	raw, err := os.ReadFile(f.Path(file))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestCacheThenMirror(t *testing.T) {
	s, count := server(t, holds(map[string]string{"/pool/a": "alpha", "/pool/b": "beta", "/other/c": "gamma"}))
	f := newFetcher(t, s.URL)
	a, b, c := fileOf("pool/a", "alpha"), fileOf("pool/b", "beta"), fileOf("pool/c", "gamma")
	c.Other = "other/c"
	ctx := context.Background()
	if err := f.Files(ctx, []File{a, a}); err != nil {
		t.Fatal(err)
	}
	if err := f.Files(ctx, []File{a, b, c}); err != nil {
		t.Fatal(err)
	}
	if got := f.content(t, a) + f.content(t, b) + f.content(t, c); got != "alphabetagamma" {
		t.Errorf("got %q", got)
	}
	if n := count.Load(); n != 4 {
		t.Errorf("%d requests, want 4: a, b, c and the other c", n)
	}
}

func TestSnapshot(t *testing.T) {
	mirror, _ := server(t, holds(nil))
	listed := time.Date(2026, 11, 21, 0, 53, 3, 0, time.UTC)
	old, _ := server(t, holds(map[string]string{"/archive/debian/20261123T005303Z/pool/a": "alpha"}))
	f := newFetcher(t, mirror.URL)
	f.Snapshot = old.URL + "/archive/"
	a, b := fileOf("pool/a", "alpha"), fileOf("pool/b", "beta")
	a.Snapshot, b.Snapshot = listed, listed
	err := f.Files(context.Background(), []File{b, a})
	gone := (*Gone)(nil)
	if !errors.As(err, &gone) || len(gone.Packages) != 1 || gone.Packages[0] != b {
		t.Errorf("got %v, want that b is gone", err)
	}
	if f.content(t, a) != "alpha" {
		t.Error("a was not found in the snapshot archive")
	}
}

func TestSnapshotOutOfReach(t *testing.T) {
	mirror, _ := server(t, holds(nil))
	closed := httptest.NewServer(nil)
	closed.Close()
	f := newFetcher(t, mirror.URL)
	f.Snapshot = closed.URL
	a := fileOf("pool/a", "alpha")
	a.Snapshot = time.Now()
	if err := f.Files(context.Background(), []File{a}); !errors.As(err, new(*Gone)) {
		t.Errorf("got %v, want that a is gone", err)
	}
}

// A mirror that cannot be reached says nothing about what it has.
func TestMirrorOutOfReach(t *testing.T) {
	closed := httptest.NewServer(nil)
	closed.Close()
	f := newFetcher(t, closed.URL)
	err := f.Files(context.Background(), []File{fileOf("pool/a", "alpha")})
	if err == nil || errors.As(err, new(*Gone)) || !strings.Contains(err.Error(), closed.URL) {
		t.Errorf("got %v", err)
	}
}

func TestTriesAgain(t *testing.T) {
	var try atomic.Int64
	s, count := server(t, func(w http.ResponseWriter, r *http.Request) {
		switch try.Add(1) {
		case 1:
			http.Error(w, "busy", http.StatusServiceUnavailable)
		case 2: // cut in the middle
			w.Header().Set("Content-Length", "5")
			io.WriteString(w, "al")
		default:
			io.WriteString(w, "alpha")
		}
	})
	f := newFetcher(t, s.URL)
	if err := f.Files(context.Background(), []File{fileOf("pool/a", "alpha")}); err != nil {
		t.Error(err)
	}
	if n := count.Load(); n != 3 {
		t.Errorf("%d requests, want 3", n)
	}
	always, count := server(t, func(w http.ResponseWriter, r *http.Request) { http.Error(w, "no", http.StatusBadGateway) })
	f = newFetcher(t, always.URL)
	err := f.Files(context.Background(), []File{fileOf("pool/a", "alpha")})
	if err == nil || !strings.Contains(err.Error(), "502") || count.Load() != 3 {
		t.Errorf("got %v after %d requests", err, count.Load())
	}
}

func TestStalled(t *testing.T) {
	release := make(chan struct{})
	s, _ := server(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "5")
		io.WriteString(w, "al")
		w.(http.Flusher).Flush()
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	defer close(release)
	f := newFetcher(t, s.URL)
	f.Stall, f.Tries = 50*time.Millisecond, 1
	err := f.Files(context.Background(), []File{fileOf("pool/a", "alpha")})
	if err == nil || !strings.Contains(err.Error(), "nothing received for 50ms") {
		t.Errorf("got %v", err)
	}
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	s, _ := server(t, func(w http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	})
	f := newFetcher(t, s.URL)
	if err := f.Files(ctx, []File{fileOf("pool/a", "alpha")}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestCorrupt(t *testing.T) {
	for name, content := range map[string]string{"changed": "alphA", "longer": "alphabet", "shorter": "alp"} {
		t.Run(name, func(t *testing.T) {
			s, count := server(t, holds(map[string]string{"/pool/a": content}))
			f := newFetcher(t, s.URL)
			a := fileOf("pool/a", "alpha")
			err := f.Files(context.Background(), []File{a})
			corrupt := (*Corrupt)(nil)
			if !errors.As(err, &corrupt) || corrupt.Place != s.URL+"/pool/a" || corrupt.Hash == a.SHA256 || count.Load() != 1 {
				t.Errorf("got %v", err)
			}
			if _, err := os.Stat(f.Path(a)); err == nil {
				t.Error("it is in the cache")
			}
			if left, _ := os.ReadDir(f.Cache.Path("tmp")); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func TestOneDownloadForAll(t *testing.T) {
	s, count := server(t, holds(map[string]string{"/pool/a": "alpha"}))
	first := newFetcher(t, s.URL)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			// Another process, as far as the cache can tell.
			f := &Fetcher{Cache: first.Cache, Mirror: first.Mirror, Snapshot: "none"}
			if err := f.Files(context.Background(), []File{fileOf("pool/a", "alpha")}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := count.Load(); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
}

func TestDirectoryMirror(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a"), []byte("alpha"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, base := range []string{dir, "file://" + dir} {
		f := newFetcher(t, base)
		if err := f.Files(context.Background(), []File{fileOf("a", "alpha")}); err != nil {
			t.Error(err)
		}
		if err := f.Files(context.Background(), []File{fileOf("b", "beta")}); !errors.As(err, new(*Gone)) {
			t.Errorf("got %v", err)
		}
		if raw, err := f.Read(context.Background(), Debian, "a", 5); err != nil || string(raw) != "alpha" {
			t.Errorf("got %q, %v", raw, err)
		}
		if _, err := f.Read(context.Background(), Debian, "a", 4); err == nil {
			t.Error("the limit is not kept")
		}
	}
}

// pack is a package with one empty file.
func pack(t *testing.T) string {
	t.Helper()
	var data bytes.Buffer
	w := tar.NewWriter(&data)
	if err := w.WriteHeader(&tar.Header{Name: "./a", Typeflag: tar.TypeReg, Mode: 0o644}); err != nil {
		t.Fatal(err)
	}
	w.Close()
	b := "!<arch>\n"
	for _, m := range [][2]string{{"debian-binary", "2.0\n"}, {"control.tar", data.String()}, {"data.tar", data.String()}} {
		b += fmt.Sprintf("%-16s%-12d%-6d%-6d%-8s%-10d`\n%s", m[0], 0, 0, 0, "100644", len(m[1]), m[1])
	}
	return b
}

func TestDamagedInCache(t *testing.T) {
	raw := pack(t)
	s, count := server(t, holds(map[string]string{"/pool/a": raw}))
	f := newFetcher(t, s.URL)
	var said bytes.Buffer
	f.Progress = NewProgress(&said)
	a := fileOf("pool/a", raw)
	ctx := context.Background()
	if err := f.Files(ctx, []File{a}); err != nil {
		t.Fatal(err)
	}
	damaged := []byte(raw)
	damaged[len(damaged)-1] ^= 1
	if err := os.WriteFile(f.Path(a), damaged, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := f.Decode(ctx, []File{a}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(said.String(), "expected SHA-256 "+a.SHA256) || count.Load() != 2 {
		t.Errorf("%d requests, said\n%s", count.Load(), said.String())
	}
	d, err := f.Data(ctx, a)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if h, err := d.Next(); err != nil || h.Name != "a" {
		t.Errorf("got %v, %v", h, err)
	}
}

// A copy that a power cut has left cut off, or empty, is never taken for a package.
func TestDamagedCopy(t *testing.T) {
	raw := pack(t)
	s, _ := server(t, holds(map[string]string{"/pool/a": raw}))
	f := newFetcher(t, s.URL)
	a := fileOf("pool/a", raw)
	ctx := context.Background()
	if err := f.Files(ctx, []File{a}); err != nil {
		t.Fatal(err)
	}
	read := func() error {
		d, err := f.Data(ctx, a)
		if err != nil {
			return err
		}
		defer d.Close()
		for {
			if _, err := d.Next(); err == io.EOF {
				return nil
			} else if err != nil {
				return err
			}
			if _, err := io.Copy(io.Discard, d); err != nil {
				return err
			}
		}
	}
	if err := read(); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(f.copyPath(a))
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		if err := os.WriteFile(f.copyPath(a), good[:i], 0o644); err != nil {
			t.Fatal(err)
		}
		if err := read(); err == nil || !strings.Contains(err.Error(), f.copyPath(a)+" is damaged; remove it") {
			t.Errorf("after %d of %d bytes: %v", i, len(good), err)
		}
	}
	if err := os.Remove(f.copyPath(a)); err != nil {
		t.Fatal(err)
	}
	if err := read(); err != nil {
		t.Errorf("made again: %v", err)
	}
}

func TestFindMirror(t *testing.T) {
	local := t.TempDir()
	for _, dir := range []string{"both/debian", "both/debian-security", "flat"} {
		if err := os.MkdirAll(filepath.Join(local, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	list := filepath.Join(local, "list")
	if err := os.WriteFile(list, []byte("http://m.example/debian\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		setting, variable string
		etc               map[string]string
		want              Mirror
	}{
		"nothing":        {want: Mirror{publicDebian, publicSecurity}},
		"setting":        {setting: "http://a.example/debian/", want: Mirror{"http://a.example/debian", "http://a.example/debian-security"}},
		"two":            {setting: "http://a.example/x, http://b.example/y", want: Mirror{"http://a.example/x", "http://b.example/y"}},
		"variable":       {variable: "http://v.example/debian", want: Mirror{"http://v.example/debian", "http://v.example/debian-security"}},
		"setting wins":   {setting: "http://a.example/debian", variable: "http://v.example/debian", want: Mirror{"http://a.example/debian", "http://a.example/debian-security"}},
		"folder":         {setting: local + "/both", want: Mirror{local + "/both/debian", local + "/both/debian-security"}},
		"folder, debian": {setting: local + "/both/debian", want: Mirror{local + "/both/debian", local + "/both/debian-security"}},
		"folder, flat":   {setting: local + "/flat", want: Mirror{local + "/flat", local + "/flat"}},
		"sources.list": {etc: map[string]string{"sources.list": "# deb http://no.example/debian x\ndeb-src http://no.example/debian x\n" +
			"deb [arch=amd64 signed-by=/k] http://a.example/debian bookworm main # c\ndeb http://s.example/debian-security bookworm main\n"},
			want: Mirror{"http://a.example/debian", "http://s.example/debian-security"}},
		"deb822": {etc: map[string]string{
			"sources.list.d/a.sources": "Enabled: no\nTypes: deb\nURIs: http://no.example/debian\n\nTypes: deb deb-src\nURIs: http://a.example/pub/debian/\nSuites: x\n",
			"sources.list.d/b.sources": "Types: deb\nURIs: https://other.example/tool\n",
			"sources.list.d/c.list":    "deb http://late.example/debian x\n"},
			want: Mirror{"http://a.example/pub/debian", "http://a.example/pub/debian-security"}},
		"mirror list": {etc: map[string]string{"sources.list.d/a.list": "deb mirror+file:" + list + " x main\n"},
			want: Mirror{"http://m.example/debian", "http://m.example/debian-security"}},
		"only others": {etc: map[string]string{"sources.list": "deb http://archive.example/ubuntu noble main\n", "sources.list.d/x.sources": " broken\n"},
			want: Mirror{publicDebian, publicSecurity}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("WALT_MIRROR", c.variable)
			etc := t.TempDir()
			for file, content := range c.etc {
				path := filepath.Join(etc, file)
				os.MkdirAll(filepath.Dir(path), 0o755)
				if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if got := FindMirror(c.setting, etc); got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestSweep(t *testing.T) {
	dir := t.TempDir()
	cache, err := OpenCache(dir)
	if err != nil {
		t.Fatal(err)
	}
	old, young := cache.Path("tmp", "old"), cache.Path("tmp", "young")
	for _, path := range []string{old, young} {
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	past := time.Now().Add(-48 * time.Hour)
	if err := os.Chtimes(old, past, past); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenCache(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(old); err == nil {
		t.Error("an old temporary file stays")
	}
	if _, err := os.Stat(young); err != nil {
		t.Error("a young temporary file is removed")
	}
}

package compose

import (
	"archive/zip"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waltos/waltos/image/fetch"
	"github.com/waltos/waltos/image/lock"
	"github.com/waltos/waltos/image/tree"
)

// newWheel writes a wheel into a cache and returns its entry of the lock.
func newWheel(t *testing.T, cache *fetch.Cache, file string, members map[string]string) lock.Wheel {
	t.Helper()
	var content bytes.Buffer
	archive := zip.NewWriter(&content)
	for name, text := range members {
		w, err := archive.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}
	w := lock.Wheel{Set: "client", Name: file, File: file, Size: int64(content.Len()), SHA256: digestOf(content.Bytes())}
	if err := os.MkdirAll(filepath.Dir(cache.File(w.SHA256)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cache.File(w.SHA256), content.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return w
}

func TestWheels(t *testing.T) {
	cache, err := fetch.OpenCache(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	doc := newWheel(t, cache, "walt_doc-10.0-py3-none-any.whl", map[string]string{
		"walt/doc/pager.py":                   "code",
		"walt/doc/html/index.html":            "<p>index",
		"walt/doc/html/__init__.py":           "",
		"walt/doc/html/_static/":              "",
		"walt/doc/html/_static/logo-walt.png": "logo",
	})
	tr := tree.New()
	if err := addWheels(tr, cache, []lock.Wheel{doc}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"/usr/lib/walt/doc/index.html":            "<p>index",
		"/usr/lib/walt/doc/_static/logo-walt.png": "logo",
	} {
		if got := content(t, tr, name); got != want {
			t.Errorf("%s is %q", name, got)
		}
	}
	if got := content(t, tr, "/usr/lib/walt/wheels/"+doc.File); digestOf([]byte(got)) != doc.SHA256 {
		t.Error("the wheel is not what the lock names")
	}
	for _, name := range []string{"/usr/lib/walt/doc/__init__.py", "/usr/lib/walt/doc/pager.py"} {
		if tr.Find(name) != nil {
			t.Errorf("%s is there", name)
		}
	}

	outside := newWheel(t, cache, "x.whl", map[string]string{"walt/doc/html/../../../../etc/passwd": "x"})
	if err := addWheels(tree.New(), cache, []lock.Wheel{outside}); err == nil || !strings.Contains(err.Error(), "is not a path") {
		t.Errorf("a name that leaves the documentation: %v", err)
	}
	if err := os.WriteFile(cache.File(doc.SHA256), []byte("other"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := addWheels(tree.New(), cache, []lock.Wheel{doc}); err == nil || !strings.Contains(err.Error(), "is damaged") {
		t.Errorf("a damaged wheel: %v", err)
	}
}

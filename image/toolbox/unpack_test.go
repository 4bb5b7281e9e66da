package toolbox

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waltos/waltos/image/archivetest"
	"github.com/waltos/waltos/image/fetch"
	"github.com/waltos/waltos/image/lock"

	"github.com/waltos/waltos/hcl"
)

// open locks packages of a test archive and opens them as a toolbox.
func open(t *testing.T, packages ...*archivetest.Package) (*Toolbox, error) {
	t.Helper()
	archive := archivetest.New(t, "test")
	archive.Put(packages...)
	archive.Publish(t)
	cache, err := fetch.OpenCache(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	f := &fetch.Fetcher{Cache: cache, Mirror: fetch.FindMirror(archive.Dir, ""), Snapshot: "none"}
	a := &hcl.Appliance{
		Debian: &hcl.Debian{Architecture: "amd64", Suites: []string{"test"}, Components: []string{"main"}},
		Boot:   &hcl.Boot{Kernel: packages[0].Name}, Root: &hcl.Root{},
	}
	for _, p := range packages {
		a.Root.Packages = append(a.Root.Packages, p.Name)
	}
	ctx := context.Background()
	l, err := (&lock.Resolver{Fetcher: f, Keyring: archive.Keyring}).Resolve(ctx, a)
	if err != nil {
		t.Fatal(err)
	}
	return Open(ctx, l, f, lock.Root)
}

func TestUnpack(t *testing.T) {
	box, err := open(t,
		&archivetest.Package{Name: "base", Version: "1", Files: map[string]string{
			"bin": "-> usr/bin", "lib": "-> usr/lib", "usr/bin/tool": "#!/bin/sh\n",
		}},
		&archivetest.Package{Name: "more", Version: "1", Files: map[string]string{
			"bin/old":             "old",
			"usr/bin/absolute":    "-> /bin/old",
			"lib/x/relative":      "-> ../../usr/bin/tool",
			"usr/share/escape":    "-> ../../../../../etc/passwd",
			"usr/share/a/b/deep":  "-> /usr/bin/tool",
			"etc/alternatives/x":  "-> /usr/bin/tool",
			"usr/share/self/loop": "-> loop",
		}},
	)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"usr/bin/tool": "#!/bin/sh\n", "bin/old": "old", "usr/bin/old": "old", "usr/bin/absolute": "old",
		"usr/lib/x/relative": "#!/bin/sh\n", "lib/x/relative": "#!/bin/sh\n", "usr/share/a/b/deep": "#!/bin/sh\n",
	} {
		if raw, err := os.ReadFile(box.Path(name)); err != nil || string(raw) != want {
			t.Errorf("%s holds %q, %v; want %q", name, raw, err, want)
		}
	}
	target, err := os.Readlink(box.Path("usr/share/escape"))
	if err != nil || strings.HasPrefix(filepath.Join(box.Path("usr/share"), target), "/etc") {
		t.Errorf("a link leads out: %q, %v", target, err)
	}
	// Again: from the cache, without the archive.
	c := box.Command(context.Background(), "none")
	if err := c.Run(); err == nil || !strings.Contains(err.Error(), "not in this toolbox") {
		t.Errorf("got %v", err)
	}
	if err := box.Command(context.Background(), "tool").Run(); err == nil || !strings.Contains(err.Error(), "is not a program") {
		t.Errorf("got %v", err)
	}
}

// A link of one package must not lead a file of another out of the tree.
func TestWriteThroughLink(t *testing.T) {
	outside := t.TempDir()
	box, err := open(t,
		&archivetest.Package{Name: "a", Version: "1", Files: map[string]string{"usr/trap": "-> " + outside}},
		&archivetest.Package{Name: "b", Version: "1", Files: map[string]string{"usr/trap/file": "x"}},
	)
	if left, _ := os.ReadDir(outside); len(left) != 0 {
		t.Errorf("written outside: %v", left)
	}
	if err == nil {
		if _, err := os.Stat(box.Path("usr/trap/file")); err != nil {
			t.Error(err)
		}
	}
}

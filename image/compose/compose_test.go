package compose

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/image/tree"
)

func TestFindSource(t *testing.T) {
	top, err := FindSource(".")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(top, "go.mod")); err != nil {
		t.Error(err)
	}
	if _, err := FindSource(t.TempDir()); err == nil || !strings.Contains(err.Error(), "change to") {
		t.Errorf("outside of the repository: %v", err)
	}
}

func TestGoEnvironment(t *testing.T) {
	got := goEnvironment([]string{
		"PATH=/bin", "GOPROXY=p", "GOCACHE=/c", "GOFLAGS=-race", "GOAMD64=v4", "CGO_ENABLED=1", "CGO_CFLAGS=-O3", "GOEXPERIMENT=x", "GOOS=plan9",
	}, "go1.2.3", "arm64")
	for _, want := range []string{"PATH=/bin", "GOPROXY=p", "GOCACHE=/c", "CGO_ENABLED=0", "GOAMD64=v1", "GOOS=linux", "GOARCH=arm64", "GOTOOLCHAIN=go1.2.3"} {
		if !slices.Contains(got, want) {
			t.Errorf("%s is missing in %v", want, got)
		}
	}
	for _, bad := range []string{"GOFLAGS=-race", "GOAMD64=v4", "CGO_ENABLED=1", "CGO_CFLAGS=-O3", "GOEXPERIMENT=x", "GOOS=plan9"} {
		if slices.Contains(got, bad) {
			t.Errorf("%s is kept", bad)
		}
	}
}

func content(t *testing.T, tr *tree.Tree, name string) string {
	t.Helper()
	f, err := tr.Get(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(f.Content)
}

func TestAccounts(t *testing.T) {
	tr := tree.New()
	users := []*hcl.User{
		{Name: "web", ID: 974, Home: "/nonexistent", Shell: "/usr/sbin/nologin", Groups: []string{"disk", "root"}},
		{Name: "root", ID: 0, Home: "/root", Shell: "/bin/bash"},
	}
	if err := addAccounts(tr, users); err != nil {
		t.Fatal(err)
	}
	want := "root:x:0:0:root:/root:/bin/bash\nweb:x:974:974:web:/nonexistent:/usr/sbin/nologin\n"
	if got := content(t, tr, "/etc/passwd"); got != want {
		t.Errorf("passwd is\n%s", got)
	}
	for _, line := range []string{"root:x:0:web\n", "disk:x:6:web\n", "web:x:974:\n"} {
		if group := content(t, tr, "/etc/group"); !strings.Contains(group, line) {
			t.Errorf("group lacks %q:\n%s", line, group)
		}
	}
	if tr.Find("/etc/shadow").Mode.Perm() != 0o640 {
		t.Error("shadow is readable by everybody")
	}
	users[0].Groups = []string{"nowhere"}
	if err := addAccounts(tree.New(), users); err == nil {
		t.Error("an unknown group was accepted")
	}
}

func TestStaticFilesIgnoreUmask(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]fs.FileMode{"plain": 0o600, "program": 0o700} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("plain", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	tr := tree.New()
	if err := addStatic(tr, dir); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]fs.FileMode{"/plain": 0o644, "/program": 0o755, "/link": fs.ModeSymlink | 0o777} {
		if f := tr.Find(name); f == nil || f.Mode != mode {
			t.Errorf("%s is %+v", name, f)
		}
	}
}

func TestFoldersAndLinks(t *testing.T) {
	tr := tree.New()
	a := &hcl.Appliance{Folders: []*hcl.Folder{{Path: "/var/lib/walt", User: "root", Mode: "0755"}}}
	if err := addFolders(tr, a); err != nil {
		t.Fatal(err)
	}
	var list []RuntimeFolder
	if err := json.Unmarshal([]byte(content(t, tr, "/usr/lib/walt/folders.json")), &list); err != nil {
		t.Fatal(err)
	}
	if len(list) != 1 || list[0] != (RuntimeFolder{"/var/lib/walt", "root", "0755"}) {
		t.Errorf("folders %+v", list)
	}
	a.Folders[0].Path = "/etc/x"
	if err := addFolders(tr, a); err == nil {
		t.Error("a folder in the read-only root was accepted")
	}
	if err := tr.Dir("/root", 0o700, 0, 0, "test"); err != nil {
		t.Fatal(err)
	}
	if err := addLinks(tr, []*hcl.Link{{Path: "/root", Target: "/var/root"}}); err != nil || tr.Find("/root").Target != "/var/root" {
		t.Errorf("link: %v, %+v", err, tr.Find("/root"))
	}
	if err := addLinks(tr, []*hcl.Link{{Path: "/run/x", Target: "/var/root"}}); err == nil {
		t.Error("a link outside of the root was accepted")
	}
}

func TestSelectModules(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"modules.dep":     "kernel/a.ko: kernel/b.ko\nkernel/b.ko:\nkernel/c.ko:\nkernel/soft-one.ko:\n",
		"modules.alias":   "alias pci:a* a\nalias pci:c* c\n",
		"modules.softdep": "softdep a pre: soft_one\nsoftdep c pre: b\n",
		"modules.builtin": "kernel/built.ko\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	k := &kernel{release: "6.1", modules: tree.New(), indexes: dir}
	for _, name := range []string{"a", "b", "c", "soft-one"} {
		if err := k.modules.Add(k.folder()+"/kernel/"+name+".ko", &tree.File{Mode: 0o644, Content: []byte(name)}); err != nil {
			t.Fatal(err)
		}
	}
	tr := tree.New()
	if err := k.selectModules(tr, []string{"a", "built"}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"modules.dep":   "kernel/a.ko: kernel/b.ko\nkernel/b.ko:\nkernel/soft-one.ko:\n",
		"modules.alias": "alias pci:a* a\n", "modules.softdep": "softdep a pre: soft_one\n",
		"kernel/soft-one.ko": "soft-one", "kernel/b.ko": "b",
	} {
		if got := content(t, tr, "/lib/modules/6.1/"+name); got != want {
			t.Errorf("%s is %q, expected %q", name, got, want)
		}
	}
	if tr.Find("/lib/modules/6.1/kernel/c.ko") != nil {
		t.Error("a module that nothing needs was selected")
	}
	if err := k.selectModules(tree.New(), []string{"missing"}); err == nil || !strings.Contains(err.Error(), "missing") {
		t.Errorf("an unknown module: %v", err)
	}
}

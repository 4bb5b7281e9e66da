package images

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/waltos/waltos/image/store"
	"github.com/waltos/waltos/image/tree"
)

// TestShipped reads the store that the image builder makes, gives its image a name in
// the writable store, and has podman judge the outcome.
func TestShipped(t *testing.T) {
	c, w := site(t)
	root := tree.New()
	must(t, root.Add("/etc/motd", &tree.File{Mode: 0o644, Content: []byte("hello")}))
	shipped, err := store.Build([]store.Image{{
		Name: "docker.io/" + defaultName, Labels: map[string]string{modelsLabel: "pc-x86-64"},
		Architecture: "amd64", Created: time.Unix(1700000000, 0), Root: root,
	}})
	must(t, err)
	c.ReadOnly = []string{filepath.Join(t.TempDir(), "storage")}
	must(t, shipped.Walk(func(name string, f *tree.File) error {
		path := filepath.Join(c.ReadOnly[0], name)
		switch {
		case f.IsDir():
			return os.MkdirAll(path, 0o755)
		case f.Target != "":
			return os.Symlink(f.Target, path)
		}
		return os.WriteFile(path, f.Content, 0o644)
	}))
	m := open(t, c)
	image, ok := m.ByName(defaultName)
	if !ok || image.Layers != 1 || image.Size == 0 || image.Created.Unix() != 1700000000 || w.text() != "" {
		t.Fatalf("image %+v, %v\n%s", image, ok, w.text())
	}
	e := m.catalog.Load().images[image.ID]
	if text, err := os.ReadFile(filepath.Join(e.lower[0], "etc", "motd")); err != nil || string(text) != "hello" {
		t.Errorf("content: %q, %v", text, err)
	}
	must(t, m.Tag(t.Context(), image.ID, "u/mine:latest"))

	podman, err := exec.LookPath("podman")
	if err != nil || os.Getuid() != 0 {
		t.Skip("the rest needs podman and root")
	}
	run := func(args ...string) ([]byte, error) {
		return exec.Command(podman, append([]string{"--root", c.Store, "--runroot", filepath.Join(c.State, "run"), "--storage-driver", "overlay",
			"--storage-opt", "additionalimagestore=" + c.ReadOnly[0]}, args...)...).CombinedOutput()
	}
	if out, err := run("info"); err != nil {
		t.Skipf("podman does not work here: %v: %s", err, out)
	}
	out, err := run("image", "inspect", "--format", "{{.Id}} {{.RepoTags}}", "docker.io/u/mine:latest")
	if err != nil {
		t.Fatalf("podman: %v\n%s", err, out)
	}
	if got := string(out); !strings.HasPrefix(got, image.ID) || !strings.Contains(got, "docker.io/u/mine:latest") || !strings.Contains(got, defaultName) {
		t.Errorf("podman sees %s", got)
	}
}

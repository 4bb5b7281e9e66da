package native

import (
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/waltos/waltos/image/store"
	"github.com/waltos/waltos/image/tree"
)

// models are those of the default image.
const models = "pc-x86-64,pc-x86-32"

// storeImages puts the default image in the container store: what nodes load to boot,
// and nothing to run.
func storeImages() error {
	root := tree.New()
	for _, dir := range []string{"/bin", "/dev", "/etc", "/mnt", "/proc", "/root", "/run", "/sys", "/tmp", "/usr/local/bin", "/boot/pc-x86-64"} {
		if err := root.Dir(dir, 0o755, 0, 0, "test"); err != nil {
			return err
		}
	}
	if err := root.Add("/boot/pc-x86-64/start.ipxe", &tree.File{Mode: 0o644, Content: []byte("#!ipxe\n")}); err != nil {
		return err
	}
	stored, err := store.Build([]store.Image{{
		Name: "docker.io/" + DefaultImage, Architecture: "amd64", Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Labels: map[string]string{"walt.node.models": models}, Command: []string{"/bin/sh"}, Root: root,
	}})
	if err != nil {
		return err
	}
	return stored.Walk(func(name string, f *tree.File) error {
		path := filepath.Join("/var/lib/containers/storage", name)
		switch {
		case f.IsDir():
			return os.MkdirAll(path, 0o755)
		case f.Mode&fs.ModeSymlink != 0:
			return os.Symlink(f.Target, path)
		}
		return os.WriteFile(path, f.Content, 0o644)
	})
}

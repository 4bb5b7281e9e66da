package erofs_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/waltos/waltos/image/erofs"
	"github.com/waltos/waltos/image/inputs/inputstest"
	"github.com/waltos/waltos/image/tree"
)

// A disk without room is told of as such, whatever mkfs.erofs makes of it.
func TestDiskFull(t *testing.T) {
	box := inputstest.Tools(t, "build")
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Skipf("cannot mount a small file system: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	content := make([]byte, 8<<20)
	rand.NewChaCha8([32]byte{}).Read(content) // nothing to compress
	root := tree.New()
	if err := root.Add("/file", &tree.File{Mode: 0o644, Content: content}); err != nil {
		t.Fatal(err)
	}
	options := erofs.Options{
		UUID: "00000000-0000-0000-0000-000000000001", Time: time.Unix(1, 0),
		Command: func(ctx context.Context, arguments ...string) (*exec.Cmd, error) {
			return box.Command(ctx, "mkfs.erofs", arguments...), nil
		},
	}
	if _, err := erofs.Write(t.Context(), filepath.Join(dir, "image"), root, options); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("on a full disk: %v", err)
	}
	missing := filepath.Join(t.TempDir(), "missing", "image")
	if _, err := erofs.Write(t.Context(), missing, root, options); err == nil || errors.Is(err, unix.ENOSPC) {
		t.Errorf("in a folder that is not there: %v", err)
	}
	name := filepath.Join(t.TempDir(), "image")
	size, err := erofs.Write(t.Context(), name, root, options)
	if info, statErr := os.Stat(name); err != nil || statErr != nil || info.Size() != size {
		t.Errorf("where there is room: %d bytes, %v", size, err)
	}
}

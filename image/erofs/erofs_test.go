package erofs_test

import (
	"context"
	"errors"
	"fmt"
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
	noise, root := rand.NewChaCha8([32]byte{}), tree.New()
	for i := range 64 {
		content := make([]byte, 512<<10)
		noise.Read(content[:len(content)/2])
		if err := root.Add(fmt.Sprintf("/file%d", i), &tree.File{Mode: 0o644, Content: content}); err != nil {
			t.Fatal(err)
		}
	}
	options := erofs.Options{
		UUID: "00000000-0000-0000-0000-000000000001", Time: time.Unix(1, 0),
		Command: func(ctx context.Context, arguments ...string) (*exec.Cmd, error) {
			return box.Command(ctx, "mkfs.erofs", arguments...), nil
		},
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
	// As mkfs.erofs does with some contents.
	waits := options
	waits.Command = func(ctx context.Context, arguments ...string) (*exec.Cmd, error) {
		return exec.CommandContext(ctx, "sh", "-c", `cat > "$0"; exec sleep 1000`, arguments[len(arguments)-1]), nil
	}
	for _, c := range []struct {
		size    string
		options erofs.Options
	}{{"8m", options}, {"40m", options}, {"8m", waits}} { // what is still to be compressed is at the end of the image, too
		dir := t.TempDir()
		if err := unix.Mount("none", dir, "tmpfs", 0, "size="+c.size); err != nil {
			t.Skipf("cannot mount a small file system: %v", err)
		}
		_, err := erofs.Write(t.Context(), filepath.Join(dir, "image"), root, c.options)
		if !errors.Is(err, unix.ENOSPC) {
			t.Errorf("on a full disk of %s: %v", c.size, err)
		}
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
	}
}

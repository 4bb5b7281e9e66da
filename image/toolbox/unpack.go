package toolbox

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/waltos/waltos/image/deb"
	"github.com/waltos/waltos/image/fetch"
)

// top are the folders that Debian keeps below /usr, with links at the top.
var top = []string{"bin", "sbin", "lib", "lib32", "lib64", "libx32"}

// merged maps a path of a package to its place under a merged /usr.
func merged(name string) string {
	for _, folder := range top {
		if name == folder || strings.HasPrefix(name, folder+"/") {
			return "usr/" + name
		}
	}
	return name
}

// unpack writes packages into a folder. The folder is opened as a root, so no link of a
// package leads a write out of it.
func unpack(ctx context.Context, dir string, f *fetch.Fetcher, files []fetch.File) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := root.Chmod(".", 0o755); err != nil {
		return err
	}
	for _, folder := range top {
		if err := root.MkdirAll("usr/"+folder, 0o755); err != nil {
			return err
		}
		if err := root.Symlink("usr/"+folder, folder); err != nil {
			return err
		}
	}
	for _, file := range files {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if err := unpackOne(ctx, root, f, file); err != nil {
			return fmt.Errorf("%s: %w", file.Label, err)
		}
	}
	if _, err := root.Stat("usr/share/qemu"); err == nil {
		// QEMU prefixes its paths with this folder when it is beside the executable,
		// which is the loader. Otherwise it would load modules of the host.
		return root.Symlink("../../..", libraries+"/qemu-bundle")
	}
	return nil
}

func unpackOne(ctx context.Context, root *os.Root, f *fetch.Fetcher, file fetch.File) error {
	data, err := f.Data(ctx, file)
	if err != nil {
		return err
	}
	defer data.Close()
	for {
		h, err := data.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := write(root, h, data); err != nil {
			return fmt.Errorf("cannot write %s: %w", h.Name, err)
		}
	}
}

func write(root *os.Root, h *tar.Header, data *deb.Data) error {
	name := merged(h.Name)
	if name != h.Name && !strings.Contains(h.Name, "/") {
		return nil // one of the links at the top, or its folder
	}
	if h.Typeflag == tar.TypeDir {
		return root.MkdirAll(name, 0o755)
	}
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	if info, err := root.Lstat(name); err == nil && !info.IsDir() {
		if err := root.Remove(name); err != nil {
			return err
		}
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	switch h.Typeflag {
	case tar.TypeReg:
		mode := fs.FileMode(h.Mode)&0o755 | 0o600
		out, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
		if err != nil {
			return err
		}
		if _, err := io.Copy(out, data); err != nil {
			out.Close()
			return err
		}
		if err := out.Chmod(mode); err != nil { // whatever the umask is
			out.Close()
			return err
		}
		return out.Close()
	case tar.TypeLink:
		return root.Link(merged(h.Linkname), name)
	case tar.TypeSymlink:
		target, err := relative(h.Name, h.Linkname)
		if err != nil {
			return err
		}
		return root.Symlink(target, name)
	default:
		return nil // devices and pipes are of no use here
	}
}

// relative rewrites the target of a link so that it stays in the tree, wherever that is
// and although /usr is merged.
func relative(name, target string) (string, error) {
	if !path.IsAbs(target) {
		target = path.Join(path.Dir(name), target)
	}
	target = merged(path.Clean("/" + target)[1:])
	return filepath.Rel(path.Dir(merged(name)), target)
}

package toolbox

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// Wrappers returns a folder with a script of the same name for each program of a folder
// of the tree, as "usr/lib/postgresql/17/bin". It is for programs that start each other:
// initdb finds postgres beside itself, and both find their data relative to that. So the
// folder stands in a second tree whose other parts are links into the first. The scripts
// need /bin/sh of the host.
func (t *Toolbox) Wrappers(ctx context.Context, folder string) (string, error) {
	folder = merged(path.Clean("/" + folder)[1:])
	id := sha256.New()
	io.WriteString(id, "wrappers 1\n"+t.dir+"\n"+folder)
	root := t.cache.Path("wrappers", hex.EncodeToString(id.Sum(nil))[:32])
	result := filepath.Join(root, folder)
	if isFolder(root) {
		return result, nil
	}
	unlock, err := t.cache.Lock(ctx, "wrappers-"+filepath.Base(root))
	if err != nil {
		return "", err
	}
	defer unlock()
	if isFolder(root) {
		return result, nil
	}
	temp, err := t.cache.TempDir()
	if err != nil {
		return "", fmt.Errorf("cannot wrap %s: %w", folder, err)
	}
	defer os.RemoveAll(temp)
	if err := os.Chmod(temp, 0o755); err != nil {
		return "", fmt.Errorf("cannot wrap %s: %w", folder, err)
	}
	if err := t.mirror(temp, folder); err != nil {
		return "", fmt.Errorf("cannot wrap %s: %w", folder, err)
	}
	if err := t.wrap(filepath.Join(temp, folder), folder); err != nil {
		return "", fmt.Errorf("cannot wrap %s: %w", folder, err)
	}
	return result, t.cache.Keep(temp, root)
}

// mirror makes the folders that lead to one, and links for all that stands beside them.
func (t *Toolbox) mirror(root, folder string) error {
	at := ""
	for next := range strings.SplitSeq(folder, "/") {
		siblings, err := os.ReadDir(t.Path(at))
		if err != nil {
			return err
		}
		for _, s := range siblings {
			if s.Name() == next {
				continue
			}
			if err := os.Symlink(filepath.Join(t.Path(at), s.Name()), filepath.Join(root, at, s.Name())); err != nil {
				return err
			}
		}
		at = path.Join(at, next)
		if err := os.Mkdir(filepath.Join(root, at), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// wrap writes the scripts. What is no program is linked.
func (t *Toolbox) wrap(dir, folder string) error {
	entries, err := os.ReadDir(t.Path(folder))
	if err != nil {
		return err
	}
	for _, e := range entries {
		script := filepath.Join(dir, e.Name())
		p, err := t.inspect(path.Join(folder, e.Name()))
		if err != nil || p.loader == "" {
			if err := os.Symlink(filepath.Join(t.Path(folder), e.Name()), script); err != nil {
				return err
			}
			continue
		}
		var b bytes.Buffer
		fmt.Fprintf(&b, "#!/bin/sh\nunset LD_LIBRARY_PATH LD_PRELOAD\nexec %s --inhibit-cache --argv0 \"$0\" --library-path %s %s \"$@\"\n",
			quote(p.loader), quote(strings.Join(p.libraries, ":")), quote(p.file))
		if err := os.WriteFile(script, b.Bytes(), 0o755); err != nil {
			return err
		}
		if err := os.Chmod(script, 0o755); err != nil { // whatever the umask is
			return err
		}
	}
	return nil
}

// quote makes one word for the shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

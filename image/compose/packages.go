package compose

import (
	"context"
	"fmt"
	"io/fs"

	"github.com/waltos/waltos/image/lock"
	"github.com/waltos/waltos/image/tree"
)

// newRoot returns a tree with the folders of a merged /usr.
func newRoot() (*tree.Tree, error) {
	t := tree.New()
	for _, name := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := t.Dir("/usr/"+name, 0o755, 0, 0, "builder"); err != nil {
			return nil, err
		}
		if err := t.Add("/"+name, symlink("usr/"+name)); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func symlink(target string) *tree.File {
	return &tree.File{Mode: fs.ModeSymlink | 0o777, Target: target, Origin: "builder"}
}

// readPackages unpacks a set of a lock into a new tree, without what is dropped.
func (b *builder) readPackages(ctx context.Context, l *lock.Lock, set string, drop []string) (*tree.Tree, error) {
	t, err := newRoot()
	if err != nil {
		return nil, err
	}
	patterns, err := tree.NewPatterns(drop)
	if err != nil {
		return nil, fmt.Errorf("set %s: drop: %w", set, err)
	}
	packages, err := l.Set(set)
	if err != nil {
		return nil, err
	}
	for _, p := range packages {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		data, err := b.Inputs.Fetcher.Data(ctx, l.File(p))
		if err != nil {
			return nil, fmt.Errorf("cannot unpack %s: %w", p, err)
		}
		err = t.AddArchive(data, "package "+p.Name, func(name string) bool { return !patterns.Match(name) })
		data.Close()
		if err != nil {
			return nil, err
		}
	}
	return t, nil
}

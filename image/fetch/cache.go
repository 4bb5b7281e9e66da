package fetch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Cache is a folder that several processes share. Files are known by their SHA-256 and
// appear by rename, complete or not at all.
type Cache struct{ dir string }

// OpenCache opens the cache in dir, by default $WALT_CACHE or else the folder waltos
// of the user's cache folder.
func OpenCache(dir string) (*Cache, error) {
	if dir == "" {
		dir = os.Getenv("WALT_CACHE")
	}
	if dir == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("cannot find a cache folder: %w; set WALT_CACHE", err)
		}
		dir = filepath.Join(user, "waltos")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	c := &Cache{dir}
	for _, sub := range []string{"tmp", "locks"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, fmt.Errorf("cannot make cache: %w", err)
		}
	}
	c.sweep()
	return c, nil
}

// sweep removes what interrupted processes left long ago.
func (c *Cache) sweep() {
	left, err := os.ReadDir(c.Path("tmp"))
	if err != nil {
		return
	}
	for _, e := range left {
		if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > 24*time.Hour {
			os.RemoveAll(c.Path("tmp", e.Name()))
		}
	}
}

// Path names a place in the cache.
func (c *Cache) Path(parts ...string) string {
	return filepath.Join(append([]string{c.dir}, parts...)...)
}

// File names the place of a file with the given hash.
func (c *Cache) File(sha256 string) string {
	return c.Path("files", sha256[:2], sha256)
}

// Temp makes a file to write before it gets its name by Keep.
func (c *Cache) Temp() (*os.File, error) {
	return os.CreateTemp(c.Path("tmp"), "file-")
}

// TempDir makes a folder to fill before it gets its name by Keep.
func (c *Cache) TempDir() (string, error) {
	return os.MkdirTemp(c.Path("tmp"), "dir-")
}

// Keep gives a temporary file or folder its name, once its content is safe from a power cut.
// A name that exists already is good as it is: names stand for content.
func (c *Cache) Keep(temp, name string) error {
	if err := flush(temp); err != nil {
		return fmt.Errorf("cannot write cache: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	err := os.Rename(temp, name)
	if errors.Is(err, os.ErrExist) || errors.Is(err, unix.ENOTEMPTY) {
		return os.RemoveAll(temp)
	}
	return err
}

// flush writes a file to the disk, or with a folder its whole file system.
func flush(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.IsDir() {
		return errors.Join(err, f.Sync())
	}
	return os.NewSyscallError("syncfs", unix.Syncfs(int(f.Fd())))
}

// Lock waits until no other process or goroutine holds the name, so that work whose
// result is kept is done once.
func (c *Cache) Lock(ctx context.Context, name string) (unlock func(), err error) {
	path := c.Path("locks", strings.ReplaceAll(name, "/", "-"))
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("cannot lock cache: %w", err)
	}
	// flock cannot wait for a context, hence the polling.
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("cannot lock %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

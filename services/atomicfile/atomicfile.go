// Package atomicfile replaces files so that a reader, or a machine whose power is cut,
// finds the old content or the new one, whole.
//
// The new content is written beside the file, made durable, and renamed; then the
// folder is made durable too. A write that fails leaves the old file alone, and
// nothing beside it.
package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Write replaces the file at path, whose folder must exist. The mode is taken as it
// is, whatever the umask.
func Write(path string, content []byte, mode fs.FileMode) error {
	f, err := Replace(path, content, mode)
	if err != nil {
		return err
	}
	return f.Close()
}

// Replace does what Write does and returns the new file, open behind its content.
func Replace(path string, content []byte, mode fs.FileMode) (_ *os.File, err error) {
	folder := filepath.Dir(path)
	f, err := os.CreateTemp(folder, "."+filepath.Base(path)+".*")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	_, err = f.Write(content)
	if err = errors.Join(err, f.Chmod(mode), f.Sync()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return nil, errors.Join(err, os.Remove(f.Name()))
	}
	if err = syncFolder(folder); err != nil {
		return nil, err
	}
	return f, nil
}

func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

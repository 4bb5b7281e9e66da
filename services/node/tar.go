package main

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
)

// sendTar is walt-tar-send PATH NAME: it writes on standard output a tar whose only
// top entry is NAME, with the content of PATH. A PATH that is a link is followed;
// links inside are kept.
func sendTar(_ context.Context, args []string) error {
	if len(args) != 2 {
		return errors.New("usage: walt-tar-send PATH NAME")
	}
	return writeTar(os.Stdout, args[0], args[1])
}

func writeTar(w io.Writer, source, name string) error {
	real, err := filepath.EvalSymlinks(source)
	if err != nil {
		return fmt.Errorf("cannot send %s: %w", source, err)
	}
	archive := tar.NewWriter(w)
	err = filepath.WalkDir(real, func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(real, file)
		if err != nil {
			return err
		}
		return addToTar(archive, file, path.Join(name, filepath.ToSlash(relative)))
	})
	if err != nil {
		return fmt.Errorf("cannot send %s: %w", source, err)
	}
	return archive.Close()
}

func addToTar(archive *tar.Writer, file, name string) error {
	info, err := os.Lstat(file)
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSocket != 0 {
		return nil // a tar has no form for sockets
	}
	target := ""
	if info.Mode()&fs.ModeSymlink != 0 {
		if target, err = os.Readlink(file); err != nil {
			return err
		}
	}
	header, err := tar.FileInfoHeader(info, target)
	if err != nil {
		return err
	}
	header.Name = name
	if err := archive.WriteHeader(header); err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return nil
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	// A file may change while it is read: it is cut, or filled with zeroes, to the size
	// announced, as GNU tar does.
	n, err := io.Copy(archive, io.LimitReader(f, header.Size))
	if err != nil {
		return err
	}
	_, err = io.CopyN(archive, zeroes{}, header.Size-n)
	return err
}

type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
